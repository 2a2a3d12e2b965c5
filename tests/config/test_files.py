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
