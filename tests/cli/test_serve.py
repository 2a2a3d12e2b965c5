# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What ``kdps serve`` refuses before it serves; tests/serve has the page."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from command_line import Run, runner

from kdps.errors import KdpsError
from kdps.serve.address import bind

pytest.importorskip("gradio")


@pytest.fixture
def serve(setup: Any, tmp_path: Path) -> Run:
    return runner(
        "serve",
        config_file=setup.config,
        weights=setup.weights,
        index=tmp_path / "none.db",
        port=0,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--index: .*none.db does not exist; kdps gallery build makes it"),
        ({"max_upload": 0}, "--max-upload: must be above 0"),
        ({"port": 100_000}, "--host, --port: 127.0.0.1:100000 cannot be served at"),
        ({"host": "::1", "port": 100_000}, r"--host, --port: \[::1\]:100000 cannot be served at"),
        ({"host": "nowhere.invalid"}, "--host, --port: nowhere.invalid:0 cannot be served at"),
        ({"score_thresh": 2}, "SCORE_THRESH"),
    ],
)
def test_errors_take_one_line(
    serve: Run, capsys: pytest.CaptureFixture[str], options: dict[str, Any], message: str
) -> None:
    assert serve(**options) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if "kdps: error" in line]
    assert re.search(message, line)


def test_the_address_told_is_one_that_a_browser_takes(
    serve: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        bind("::1", 0).close()
    except KdpsError as error:
        pytest.skip(f"no IPv6 loopback: {error}")
    monkeypatch.setattr("kdps.cli.serve.open_searcher", mock.MagicMock())
    monkeypatch.setattr("kdps.cli.serve.SearchDesk", mock.MagicMock())
    monkeypatch.setattr("kdps.serve.server.make_server", mock.MagicMock())
    assert serve(host="::1") == 0
    assert re.search(r" at http://\[::1\]:\d+ ", capsys.readouterr().out)


def test_the_extra_is_named(
    serve: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert serve() == 2
    assert "kdps with its extra 'serve'" in capsys.readouterr().err
