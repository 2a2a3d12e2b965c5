# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from kdps.checkpoint.files import atomic_write
from kdps.errors import KdpsError


def test_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic_write(path) as stream:
        stream.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_former_file_survives_a_failure_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path, "w") as stream:  # noqa: PT012
        stream.write("ne")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]
    with atomic_write(path, "w") as stream:
        stream.write("newer")
    assert path.read_text() == "newer"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_content_is_on_disk_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (calls.append("fsync"), fsync(f)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    with atomic_write(tmp_path / "a") as stream:
        stream.write(b"x")
    # The last one is the folder's.
    assert calls == ["fsync", "replace", "fsync"]


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(KdpsError, match="cannot be written .No space left"), atomic_write(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_torch_meets_a_full_disk(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.pth"
    # A device that takes no byte.
    (tmp_path / "a.pth.tmp").symlink_to("/dev/full")
    message = "a.pth: cannot be written .No space left"
    with pytest.raises(KdpsError, match=message), atomic_write(path) as stream:
        torch.save({"x": torch.zeros(size)}, stream)
    assert os.listdir(tmp_path) == []


def test_an_error_behind_an_error_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    message = "cannot be written .No space left"
    with pytest.raises(KdpsError, match=message), atomic_write(path):  # noqa: PT012
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            raise RuntimeError("unexpected pos")


def test_missing_folder_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "none" / "a"
    with pytest.raises(KdpsError, match=f"^{path}: cannot be written"), atomic_write(path):
        pass
