# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Forged requests to the whole server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from kdps.errors import KdpsError
from kdps.serve.address import bind, is_loopback, url_host
from kdps.serve.desk import SearchDesk

pytest.importorskip("gradio")

from kdps.serve.server import make_server

SECRET = "the secret of this machine"


@contextmanager
def serving(desk: SearchDesk, host: str, at: str = "127.0.0.1") -> Iterator[int]:
    """The port at which the page of a host is served, at an address of this machine."""
    with bind(at, 0) as sock:
        server = make_server(desk, host)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        yield sock.getsockname()[1]
        server.should_exit = True
        thread.join(timeout=30)


@pytest.fixture
def address(desk: SearchDesk) -> Iterator[str]:
    """Where the page is served."""
    with serving(desk, "127.0.0.1") as port:
        yield f"http://127.0.0.1:{port}"


class Visitor:
    """Speaks to the server as the page does."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.config = requests.get(f"{address}/config", timeout=60).json()
        self.ids = {
            part["props"].get("elem_id") or part["props"].get("value"): part["id"]
            for part in self.config["components"]
            if part["type"] in ("html", "button")
        }

    def post(self, piece: str, event: str, data: list[Any], said: Any = None) -> requests.Response:
        """Trigger the event of a piece; ``data`` stands for the values of its inputs."""
        (number,) = (
            function["id"]
            for function in self.config["dependencies"]
            if [self.ids[piece], event] in function["targets"]
        )
        body = {"data": data, "event_data": said, "fn_index": number, "session_hash": "visit"}
        url = f"{self.address}/gradio_api/queue/join"
        return requests.post(url, json=body, timeout=60)

    def ask(self, piece: str, event: str, data: list[Any], said: Any = None) -> dict[str, Any]:
        """The outcome of an event: ``success`` and ``output``."""
        answer = self.post(piece, event, data, said)
        assert answer.status_code == 200, answer.text
        url = f"{self.address}/gradio_api/queue/data"
        stream = requests.get(url, {"session_hash": "visit"}, stream=True, timeout=60)
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix(b"data: ")) if line else {}
            if message.get("msg") == "process_completed":
                stream.close()
                return message
        raise AssertionError("no answer came")


def html_of(outcome: dict[str, Any]) -> str:
    assert outcome["success"], outcome
    return str(outcome["output"]["data"][-1])


def test_a_forged_request_reads_no_file(address: str, desk: SearchDesk, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_text(SECRET)
    visitor = Visitor(address)
    filters: list[Any] = [None, [], "", "", 5]
    # As the page asks, it is answered.
    assert "data-person" in html_of(visitor.ask("Show the scene", "click", [None, 0, ""]))
    found = html_of(visitor.ask("kdps-scene", "select", filters, {"person": 0}))
    assert "data-hit" in found
    assert "data:image" in html_of(visitor.ask("kdps-hits", "select", [None], {"hit": 0}))

    texts = []
    for path in (str(secret), f"file://{secret}", secret.as_posix().replace("/", "\\/")):
        # A path where a number belongs, in each event that has one.
        for piece, event, data, said in (
            ("Show the scene", "click", [None, path, ""], None),
            ("Show the scene", "click", [None, 1, path], None),
            ("kdps-upload", "upload", [None], {"data": path}),
            ("kdps-upload", "upload", [None], {"data": f"data:{path};base64,{path}"}),
            ("kdps-scene", "select", filters, {"person": path}),
            ("kdps-hits", "select", [None], {"hit": path}),
        ):
            outcome = visitor.ask(piece, event, data, said)
            assert not outcome["success"], (piece, said)
            texts.append(json.dumps(outcome))
        # A file as Gradio's components send it, in the place of the state and of a text.
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        for data in ([file, 0, ""], [None, 0, file]):
            assert visitor.post("Show the scene", "click", data).status_code == 400
        for route in ("file=", "file/", "stream/", "proxy=file://", "custom_component/"):
            answer = requests.get(f"{address}/gradio_api/{route}{path}", timeout=60)
            assert answer.status_code == 404
            texts.append(answer.text)
        upload = requests.post(f"{address}/gradio_api/upload", files={"files": b"x"}, timeout=60)
        assert upload.status_code == 404
    for folder in ("assets", "static"):
        forged = requests.Request("GET", f"{address}/").prepare()
        for target in (f"/{folder}/{secret}", f"/{folder}/..%2f..%2f{secret}"):
            forged.url = address + target
            answer = requests.Session().send(forged, timeout=60)
            assert answer.status_code in (403, 404)
            texts.append(answer.text)
    assert not any(SECRET in text for text in texts)


def test_other_names_and_what_is_not_on_the_page_are_refused(address: str) -> None:
    assert requests.get(address, headers={"Host": "rebound.example"}, timeout=60).status_code == 400
    page = requests.get(address, timeout=60)
    assert page.status_code == 200
    assert "content-security-policy" in page.headers
    config = requests.get(f"{address}/config", timeout=60).json()
    assert config["analytics_enabled"] is False
    assert requests.get(f"{address}/gradio_api/info", timeout=60).status_code == 404


def test_an_open_server_tells_other_sites_nothing(desk: SearchDesk) -> None:
    with serving(desk, "0.0.0.0") as port:

        def ask(path: str, **headers: str) -> requests.Response:
            names = {"Host": "search.example", **headers}
            return requests.get(f"http://127.0.0.1:{port}{path}", headers=names, timeout=60)

        foreign = ask("/config", Origin="http://other.example")
        assert foreign.status_code == 403
        assert "footage" not in foreign.text
        own = ask("/config", Origin="http://search.example")
        assert own.status_code == 200
        for answer in (foreign, own, ask("/", Origin="http://search.example")):
            assert not [name for name in answer.headers if "access-control" in name.lower()]


def test_the_page_is_served_by_ipv6(desk: SearchDesk) -> None:
    try:
        bind("::1", 0).close()
    except KdpsError as error:
        pytest.skip(f"no IPv6 loopback: {error}")
    # The other way to write it is none that browsers send.
    for host in ("::1", "0:0:0:0:0:0:0:1"):
        with serving(desk, host, at="::1") as port:
            assert requests.get(f"http://{url_host(host)}:{port}/config", timeout=60).ok
            other = {"Host": f"[::2]:{port}"}
            answer = requests.get(f"http://[::1]:{port}/config", headers=other, timeout=60)
            assert answer.status_code == 400


def test_hosts_in_addresses_of_pages() -> None:
    assert url_host("::1") == url_host("0:0:0:0:0:0:0:1") == "[::1]"
    assert [url_host(host) for host in ("127.0.0.1", "a.example")] == ["127.0.0.1", "a.example"]


def test_an_address_in_use_takes_one_line() -> None:
    with bind("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(KdpsError, match=f"--host, --port: 127.0.0.1:{port} cannot be served"):
            bind("127.0.0.1", port)
    with pytest.raises(KdpsError, match="--host, --port: "):
        bind("127.0.0.1", 100_000)


def test_which_addresses_are_of_this_machine_alone() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.2", "example.org")))
