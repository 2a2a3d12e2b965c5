# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What the server answers, and what it does not."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from typing import Any

import pytest

from kdps.serve.guard import Guard

HOST = "search.example:7860"
# Of the guarded application.
ANSWER = [
    (b"a", b"b"),
    (b"Access-Control-Allow-Origin", b"http://other.example"),
    (b"access-control-allow-credentials", b"true"),
]


def ask(
    method: str,
    path: str,
    body: bytes = b"",
    *,
    asked: dict[str, str] | None = None,
    parts: int = 1,
    most: int = 1000,
) -> tuple[int, dict[str, str], bytes | None]:
    """Status, headers, and the body that got through to the application (None if nothing did)."""
    seen: list[bytes] = []
    sent: list[dict[str, Any]] = []
    size = max(1, -(-len(body) // parts))
    pieces = deque([body[i : i + size] for i in range(0, len(body), size)] or [b""])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert not message["more_body"]
        seen.append(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": ANSWER})
        await send({"type": "http.response.body", "body": b"ok"})

    async def receive() -> dict[str, Any]:
        piece = pieces.popleft()
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [
        (name.encode(), value.encode()) for name, value in {"host": HOST, **(asked or {})}.items()
    ]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(Guard(app, max_body=most)(scope, receive, send))
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], told, seen[0] if seen else None


JOIN = "/gradio_api/queue/join"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/assets/index-a_1.js", 200),
        ("GET", "/gradio_api/queue/data", 200),
        ("POST", JOIN, 200),
        ("GET", "/gradio_api/file=/etc/passwd", 404),
        ("GET", "/file=/etc/passwd", 404),
        ("GET", "/gradio_api/proxy=http://example.org", 404),
        ("GET", "/assets/../../../etc/passwd", 404),
        ("GET", "/static//etc/passwd", 200),  # Gradio joins safely; see test_server
        ("POST", "/gradio_api/upload", 404),
        ("POST", "/gradio_api/run/predict", 404),
        ("POST", "/", 404),
        ("PUT", "/", 404),
        ("GET", "/monitoring", 404),
    ],
)
def test_only_what_the_page_needs_is_there(method: str, path: str, status: int) -> None:
    found, headers, _ = ask(method, path)
    assert found == status
    assert "default-src 'self'" in headers["content-security-policy"]
    assert ("a" in headers) == (status == 200)


def test_bodies_come_through_whole() -> None:
    body = json.dumps({"data": [None, 3, "a path"], "event_data": {"box": [0, 0, 1, 1]}}).encode()
    assert ask("POST", JOIN, body, parts=7) == (200, ask("POST", JOIN, body)[1], body)


NAVIGATION = {"sec-fetch-mode": "navigate"}


@pytest.mark.parametrize(
    ("method", "path", "asked", "status"),
    [
        ("GET", "/config", {}, 200),
        ("GET", "/config", {"origin": f"http://{HOST}"}, 200),
        ("GET", "/config", {"origin": "https://Search.example:7860"}, 200),
        ("GET", "/config", {"host": "a.example:443", "origin": "https://a.example"}, 200),
        ("GET", "/config", {"host": "a.example:80", "origin": "http://a.example"}, 200),
        ("GET", "/config", {"host": "a.example:80", "origin": "https://a.example"}, 403),
        ("GET", "/config", {"origin": "http://other.example"}, 403),
        ("GET", "/config", {"origin": "http://search.example"}, 403),
        ("GET", "/", {"origin": "http://other.example", **NAVIGATION}, 403),
        ("GET", "/config", {"origin": "null"}, 403),
        ("POST", JOIN, {"origin": f"http://{HOST}"}, 200),
        ("POST", JOIN, {"origin": "http://other.example"}, 403),
        ("GET", "/config", {"sec-fetch-site": "same-origin"}, 200),
        ("GET", "/config", {"sec-fetch-site": "none"}, 200),
        ("GET", "/config", {"sec-fetch-site": "cross-site"}, 403),
        ("GET", "/config", {"sec-fetch-site": "same-site"}, 403),
        ("GET", "/config", {"sec-fetch-site": "cross-site", **NAVIGATION}, 403),
        ("GET", "/", {"sec-fetch-site": "cross-site", **NAVIGATION}, 200),
        ("GET", "/", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}, 403),
        ("GET", "/", {"sec-fetch-site": "cross-site"}, 403),
        ("POST", JOIN, {"sec-fetch-site": "same-origin"}, 200),
        ("POST", JOIN, {"sec-fetch-site": "cross-site"}, 403),
        ("POST", JOIN, {"sec-fetch-site": "cross-site", **NAVIGATION}, 403),
    ],
)
def test_other_sites_can_only_link_to_the_page(
    method: str, path: str, asked: dict[str, str], status: int
) -> None:
    found, headers, body = ask(method, path, b"{}" if method == "POST" else b"", asked=asked)
    assert found == status
    assert (body is None) == (status == 403)
    assert not [name for name in headers if name.lower().startswith("access-control")]


def test_bodies_of_any_length_are_refused() -> None:
    fits, long = b'"' + b"a" * 998 + b'"', b'"' + b"a" * 999 + b'"'
    assert ask("POST", JOIN, fits, parts=5)[0] == 200
    assert ask("POST", JOIN, long, parts=5)[::2] == (413, None)
    assert ask("POST", JOIN, long, asked={"content-length": "2"}, parts=5)[::2] == (413, None)


def test_what_is_said_to_be_too_large_is_not_waited_for() -> None:
    assert ask("POST", JOIN, b"{}", asked={"content-length": "1000"})[::2] == (200, b"{}")
    assert ask("POST", JOIN, b"{}", asked={"content-length": "1001"})[::2] == (413, None)


def test_many_pieces_take_no_longer_than_few() -> None:
    body = b'"' + b"a" * 12_000_000 + b'"'
    before = time.process_time()
    assert ask("POST", JOIN, body, parts=20_000, most=len(body))[::2] == (200, body)
    # Copying for each piece all that came before takes three times as long at least.
    assert time.process_time() - before < 1.5


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]}',
        b'{"data": [[{"p\\u0061th": "/etc/passwd"}]]}',
        b'{"event_data": {"a": {"url": "http://10.0.0.1/"}}}',
        b"not JSON",
        b"[" * 900,
    ],
)
def test_bodies_that_name_files_are_refused(body: bytes) -> None:
    assert ask("POST", JOIN, body)[::2] == (400, None)
