# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from pathlib import Path

import pytest

from kdps.config.files import config_files

BASES = ['_BASE_: "../a.yaml"', "_BASE_: ../a.yaml  # why", "_BASE_: '../a.yaml'"]


@pytest.mark.parametrize("line", BASES)
def test_a_config_and_those_below(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("a.yaml").write_text("X: 1\n")
    Path("sub/b.yaml").write_text(f"{line}\nY: 1\n")
    Path("sub/c.yaml").write_text('# more\n_BASE_: "b.yaml"\n')
    assert [str(path) for path in config_files("sub/c.yaml")] == [
        "sub/c.yaml",
        "sub/b.yaml",
        "a.yaml",
    ]
    assert config_files(tmp_path / "a.yaml") == (tmp_path / "a.yaml",)


def test_several_bases_are_named_once(tmp_path):
    for name, text in (
        ("a", "X: 1"),
        ("b", '_BASE_: "a.yaml"'),
        ("c", '_BASE_: ["b.yaml", "a.yaml", "d.yaml"]'),
        ("d", ""),
    ):
        (tmp_path / f"{name}.yaml").write_text(text)
    assert [path.stem for path in config_files(tmp_path / "c.yaml")] == ["c", "b", "a", "d"]
