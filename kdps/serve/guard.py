# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What a browser may ask of the server, and what the answers let it do."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# Gradio can do more: take and hand out files, fetch addresses, reload itself. The page does not
# use that, so that nobody else gets to.
_ALLOWED = {
    "GET": re.compile(
        r"/|/config|/theme\.css|/favicon\.ico|/(assets|static)/[\w./-]+"
        r"|/gradio_api/(startup-events|queue/data|heartbeat/\w+)"
    ),
    "HEAD": re.compile("/"),
    "POST": re.compile(r"/gradio_api/(queue/join|reset|cancel)"),
}
_HEADERS = {
    # Gradio compiles its templates in the browser, which is "eval".
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' "
    "'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; frame-ancestors 'none'; form-action 'self'; base-uri 'self'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """ASGI middleware that lets through what the page needs and nothing else.

    Refused are other addresses than the page's own, what other sites' pages ask for but by a link
    to the page, bodies that are too large, and bodies that name a file: in Gradio that is a path or
    an address which the server would read. Gradio's leave for other sites to read its answers is
    taken out of them.

    Args:
        app: what is guarded.
        max_body: the most bytes of a request.
    """

    def __init__(self, app: App, max_body: int) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        allowed = _ALLOWED.get(scope["method"])
        if allowed is None or not allowed.fullmatch(scope["path"]) or ".." in scope["path"]:
            return await _refuse(send, 404, "there is nothing here")
        headers = dict(scope["headers"])
        if _from_another_site(scope["path"], headers):
            return await _refuse(send, 403, "another site's page asked for this")
        if scope["method"] == "POST":
            body = await _read(receive, headers, self._max_body)
            if body is None:
                return await _refuse(send, 413, "the request is too large")
            if _names_a_file(body):
                return await _refuse(send, 400, "the page takes no files by name")
            receive = _again(body, receive)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [
                    (name, value)
                    for name, value in message.get("headers", ())
                    if not name.lower().startswith(b"access-control-")
                ]
                message["headers"] = [*own, *_encoded(_HEADERS)]
            await send(message)

        return await self._app(scope, receive, with_headers)


def _from_another_site(path: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a page of another origin asks for something, other than by a link to the page."""
    origin, host = headers.get(b"origin"), headers.get(b"host", b"").lower()
    # A reverse proxy may have taken the TLS away, and may name the port that browsers leave out.
    own = (b"http://" + host.removesuffix(b":80"), b"https://" + host.removesuffix(b":443"))
    if origin is not None and origin.lower() not in own:
        return True
    # Browsers send these over TLS, or to their own machine.
    if headers.get(b"sec-fetch-site", b"none") in (b"none", b"same-origin"):
        return False
    return path != "/" or headers.get(b"sec-fetch-mode") != b"navigate"


async def _read(receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> bytes | None:
    """The body of a request; None if it is longer, or is said to be, which is not waited for."""
    if int(headers.get(b"content-length", 0)) > limit:
        return None
    # Adding to bytes would copy all of them for each piece that comes.
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > limit:
            return None
        if not message.get("more_body"):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """Receives a body that has been read, and then what else comes."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _names_a_file(body: bytes) -> bool:
    """Whether a JSON text has anything that Gradio would take for a file, or is none."""
    try:
        content = json.loads(body) if body else None
    except (ValueError, RecursionError):
        return True
    left = [content]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "path" in value or "url" in value:
                return True
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return False


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = _encoded({"content-type": "application/json", **_HEADERS})
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": reason}).encode()})


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]
