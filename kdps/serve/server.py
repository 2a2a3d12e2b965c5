# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The server of the page. Imported only where Gradio, which brings all it needs, is there."""

from __future__ import annotations

from typing import Any

import gradio
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from uvicorn import Config, Server

from kdps.serve.address import LOOPBACK, is_loopback, url_host
from kdps.serve.desk import SearchDesk
from kdps.serve.guard import Guard
from kdps.serve.page import make_page
from kdps.serve.pieces import asset

_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial"]
# What a request has around the image, which itself is a third larger as text.
_AROUND_IMAGE = 100_000


def make_server(desk: SearchDesk, host: str) -> Server:
    """The server of the page over a desk; ``run(sockets=[bind(...)])`` serves until interrupted.

    On the loopback interface it answers to no other name, so that another site cannot reach it by
    a name of its own that leads there.
    """
    middleware = [Middleware(Guard, max_body=desk.max_bytes * 4 // 3 + _AROUND_IMAGE)]
    if is_loopback(host):
        names = [url_host(host), LOOPBACK, "localhost"]
        middleware.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=names))
    app = FastAPI(middleware=middleware, docs_url=None, redoc_url=None, openapi_url=None)
    gradio.mount_gradio_app(app, make_page(desk), path="/", **_settings())
    return Server(Config(app, log_level="warning", timeout_graceful_shutdown=2))


def _settings() -> dict[str, Any]:
    """Said in full, because Gradio takes what is not said from the environment."""
    return {
        "theme": gradio.themes.Default(font=_FONTS, font_mono=["ui-monospace", "monospace"]),
        "css": asset("page.css"),
        "head": f"<style>{asset('layout.css')}</style>",
        "footer_links": [],
        "run_history": False,
        "allowed_paths": [],
        "show_error": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "pwa": False,
        "mcp_server": False,
    }
