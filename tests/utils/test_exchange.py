# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest

from kdps.utils.exchange import exchange


def test_folders_change_places(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(name)
    exchange(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "one" / "content").read_text() == "other"
    assert (tmp_path / "other" / "content").read_text() == "one"


def test_one_that_is_not_there(tmp_path):
    (tmp_path / "one").mkdir()
    with pytest.raises(FileNotFoundError, match="one"):
        exchange(tmp_path / "one", tmp_path / "none")
    assert (tmp_path / "one").is_dir()
