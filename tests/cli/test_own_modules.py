# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from kdps.cli.main import main
from kdps.cli.own_modules import add_own_config, own_modules
from kdps.errors import KdpsError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory; modules imported from it are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def test_current_directory_is_searched_while_the_command_runs(folder: Path) -> None:
    (folder / "own_package").mkdir()
    (folder / "own_package" / "part.py").write_text("def late():\n    import own_late")
    (folder / "own_late.py").write_text("")
    path = list(sys.path)
    with own_modules(["own_package.part"]):
        assert sys.path == [str(folder), *path]
        sys.modules["own_package.part"].late()
    assert sys.path == path


def test_path_is_left_alone_without_need(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = list(sys.path)
    with own_modules([]):
        assert sys.path == path
    (folder / "own_module.py").write_text("")
    monkeypatch.setattr(sys, "path", [*path, str(folder)])
    with own_modules(["own_module"]):
        assert sys.path == [*path, str(folder)]
    assert sys.path == [*path, str(folder)]


def test_only_modules_with_add_config_add_keys(folder: Path) -> None:
    (folder / "own_keys.py").write_text("def add_config(cfg):\n    cfg.KEY = 3")
    (folder / "own_data.py").write_text("")
    cfg = SimpleNamespace()
    with own_modules(["own_keys", "own_data"]):
        add_own_config(["own_keys", "own_data"], cfg)
    assert vars(cfg) == {"KEY": 3}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_none", "--import own_none: there is no module 'own_none'"),
        ("own_none.part", "--import own_none.part: there is no module 'own_none'"),
        ("own_needy", "--import own_needy: there is no module 'own_missing'"),
        ("own_needy.py", "--import: 'own_needy.py' is no module name"),
        ("folder/own_needy", "--import: 'folder/own_needy' is no module name"),
        (".own_needy", "--import: '.own_needy' is no module name"),
    ],
)
def test_missing_modules_are_named(folder: Path, name: str, message: str) -> None:
    (folder / "own_needy.py").write_text("import own_missing")
    path = list(sys.path)
    with pytest.raises(KdpsError) as error, own_modules([name]):
        pass
    assert str(error.value).startswith(message)
    assert sys.path == path


def test_missing_module_is_one_line(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["data", "check", "--import", "own_none", "people_test"]) == 2
    assert capsys.readouterr().err == (
        "kdps: error: --import own_none: there is no module 'own_none'\n"
    )
