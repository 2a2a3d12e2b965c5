# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import multiprocessing
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kdps.data import cache
from kdps.data.cache import cache_folder, cached_arrays
from kdps.errors import KdpsError

ARRAYS = {"names": np.array(["s1.jpg", "sé.jpg"]), "rows": np.arange(6, dtype=np.int32)}


class Compute:
    """Counts how often it was asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return ARRAYS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "inner"
    monkeypatch.setenv("KDPS_CACHE", str(folder))
    cache._warn_once.cache_clear()
    return folder


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.mat"
    path.write_bytes(b"content")
    return path


def assert_arrays(found):
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert found[name].tolist() == array.tolist()


def test_a_second_call_does_not_compute(folder, source):
    compute = Compute()
    for _ in range(2):
        assert_arrays(cached_arrays("kind-1", source, compute))
    assert compute.calls == 1
    assert len(list(folder.iterdir())) == 1, "a temporary file was left"


def test_the_content_is_the_key(folder, source, tmp_path):
    compute = Compute()
    cached_arrays("kind-1", source, compute)
    moved = source.rename(tmp_path / "moved.mat")
    cached_arrays("kind-1", moved, compute)
    assert compute.calls == 1
    cached_arrays("kind-2", moved, compute)
    assert compute.calls == 2
    moved.write_bytes(b"Content")
    cached_arrays("kind-2", moved, compute)
    assert compute.calls == 3


@pytest.mark.parametrize("value", ["", "0"])
def test_the_cache_can_be_turned_off(value, source, tmp_path, monkeypatch):
    monkeypatch.setenv("KDPS_CACHE", value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    compute = Compute()
    for _ in range(2):
        assert_arrays(cached_arrays("kind-1", source, compute))
    assert compute.calls == 2
    assert list(tmp_path.iterdir()) == [source]


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KDPS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "kdps"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/kdps")
    monkeypatch.setenv("KDPS_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("KDPS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert cache_folder() is None


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def damages(content: bytes) -> list[bytes]:
    # Within the values of an array: nothing but the checksum shows it.
    place = content.index(ARRAYS["rows"].tobytes()) + 4
    return [b"", b"no archive", content[:-30], content[: len(content) // 2], flip(content, place)]


@pytest.mark.parametrize("damage", range(5))
def test_a_damaged_file_is_written_anew(damage, folder, source, caplog):
    compute = Compute()
    cached_arrays("kind-1", source, compute)
    (path,) = folder.iterdir()
    path.write_bytes(damages(path.read_bytes())[damage])
    assert_arrays(cached_arrays("kind-1", source, compute))
    (record,) = caplog.records
    assert f"{path} is damaged and will be written anew" in record.message
    assert_arrays(cached_arrays("kind-1", source, compute))
    assert compute.calls == 2


def test_no_pickle_is_loaded(folder, source, caplog):
    cached_arrays("kind-1", source, Compute())
    (path,) = folder.iterdir()
    np.savez(path, names=np.array([{}], dtype=object))
    assert_arrays(cached_arrays("kind-1", source, Compute()))
    assert "is damaged" in caplog.text


def test_a_folder_that_cannot_be_written_is_one_warning(folder, source, caplog):
    folder.parent.write_text("a file is where the folder should be")
    compute = Compute()
    for content in (b"one", b"two"):
        source.write_bytes(content)
        assert_arrays(cached_arrays("kind-1", source, compute))
    messages = [record.message for record in caplog.records]
    assert sum("cannot be written" in message for message in messages) == 1, messages
    assert all(str(folder) in message for message in messages)


def test_a_full_disk_leaves_nothing_behind(folder, source, caplog, monkeypatch):
    def savez(file, **arrays):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", savez)
    assert_arrays(cached_arrays("kind-1", source, Compute()))
    assert "cannot be written (No space left on device)" in caplog.text
    assert list(folder.iterdir()) == []


def test_a_missing_source_is_named(folder, tmp_path):
    with pytest.raises(KdpsError, match=r"cannot read .*nowhere\.mat: No such file"):
        cached_arrays("kind-1", tmp_path / "nowhere.mat", Compute())


def test_an_error_of_the_reader_is_not_kept(folder, source):
    def fail():
        raise KdpsError("no")

    with pytest.raises(KdpsError, match="no"):
        cached_arrays("kind-1", source, fail)
    compute = Compute()
    cached_arrays("kind-1", source, compute)
    assert compute.calls == 1


def _write_often(path: Path) -> None:
    for _ in range(20):
        cache._store(path, ARRAYS)


def test_several_writers_at_once(folder):
    path = folder / "kind-1-key.npz"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_often, args=(path,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            assert zipfile.ZipFile(path).testzip() is None
            seen += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen
    assert list(folder.iterdir()) == [path]
