# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from footage import make_sightings

from kdps.errors import KdpsError
from kdps.index.base import ModelIdentity
from kdps.index.expiry import expire
from kdps.index.opening import open_index
from kdps.index.records import BEFORE_ALL, SourceRecord
from kdps.index.selection import Selection
from kdps.utils.noise import quiet_known_noise
from kdps.utils.requirements import require_faiss, require_pymilvus

IDENTITY = ModelIdentity("a" * 64, 8)
# Says that it has the file open, and keeps it open until its input ends.
HOLDER = """
import sys
from kdps.index.base import ModelIdentity
from kdps.index.opening import open_index
with open_index(sys.argv[1], ModelIdentity("a" * 64, 8)):
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def where(tmp_path: Path) -> str:
    return str(tmp_path / "index.db")


def test_rows_and_records_outlast_closing(where: str) -> None:
    record = SourceRecord("/footage/a.mp4", "a", "state", 4)
    with open_index(where, IDENTITY) as index:
        index.upsert(make_sightings(5))
        index.record([record])
    with open_index(where) as index:
        assert index.identity == IDENTITY
        assert len(index) == 5
        assert index.records(["/footage/a.mp4", "/footage/none.mp4"]) == {record.source: record}
        assert [record.camera for record in index.sources()] == ["a"]


def test_removing_what_no_record_speaks_of(where: str) -> None:
    with open_index(where, IDENTITY) as index:
        index.upsert(make_sightings(5))
        index.upsert(make_sightings(5, source="/footage/b.mp4"))
        index.remove(["/footage/a.mp4"], after=2)
        assert len(index) == 8
        index.remove(["/footage/a.mp4", "/footage/b.mp4"], BEFORE_ALL)
        assert len(index) == 0
        index.upsert(make_sightings(5))
        assert len(index) == 5


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (ModelIdentity("b" * 64, 8), r"index\.db: was built with other weights \(SHA-256 aaaa"),
        (ModelIdentity("a" * 64, 16), r"index\.db: holds embeddings of 8 numbers, .* have 16"),
    ],
)
def test_another_model(where: str, other: ModelIdentity, message: str) -> None:
    with open_index(where, IDENTITY) as index:
        index.upsert(make_sightings(5))
    with pytest.raises(KdpsError, match=message), open_index(where, other):
        pass
    with open_index(where, IDENTITY) as index:
        assert len(index) == 5


def test_places_that_hold_no_index(tmp_path: Path) -> None:
    (tmp_path / "old.db").write_text("SQLite")
    (tmp_path / "empty.db").mkdir()
    for name, message in (
        ("none.db", "does not exist; kdps gallery build makes it"),
        ("index.faiss", r"neither a local file that ends in \.db nor the address"),
        ("old.db", "not of Milvus Lite 3"),
        ("empty.db", "holds no gallery"),
    ):
        with pytest.raises(KdpsError, match=message), open_index(str(tmp_path / name)):
            pass


def test_what_stopped_in_the_making_is_made_whole(where: str) -> None:
    with open_index(where, IDENTITY) as index:
        index._client.delete("kdps_sources", filter='source == "kdps://model"')
    with pytest.raises(KdpsError, match="its making was interrupted"), open_index(where):
        pass
    with open_index(where, IDENTITY):
        pass
    with open_index(where) as index:
        assert index.identity == IDENTITY


def test_a_file_that_is_open_elsewhere(where: str) -> None:
    # The lock is one of open files, so that this process is another to itself.
    busy = pytest.raises(KdpsError, match="in use by another process")
    with open_index(where, IDENTITY), busy, open_index(where):
        pass


@pytest.mark.slow
def test_a_file_is_open_in_one_process_at_a_time(where: str) -> None:
    command = [sys.executable, "-c", HOLDER, where]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(KdpsError, match="in use by another process"), open_index(where):
            pass
        holder.stdin.close()
        with open_index(where, patience=60) as index:
            assert len(index) == 0


def test_a_server_by_its_address(server: tuple, capfd: pytest.CaptureFixture[str]) -> None:
    running, where = server
    with quiet_known_noise():
        with open_index(where, IDENTITY) as index:
            index.upsert(make_sightings(5))
            with open_index(where, IDENTITY) as other:
                assert len(other) == 5
            running.stop(grace=0).wait()
            with pytest.raises(KdpsError, match=f"{where}: .*server unavailable") as error:
                index.upsert(make_sightings(6))
            assert "\n" not in str(error.value)
        with pytest.raises(KdpsError, match=f"{where}: .*server unavailable"), open_index(where):
            pass
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("where", ["http://localhost:abc", "http://localhost:99999", "http://[::1"])
def test_addresses_that_are_none(where: str) -> None:
    message = f"^--index: {re.escape(where)} cannot be opened .*$"
    with pytest.raises(KdpsError, match=message), open_index(where):
        pass
    with pytest.raises(KdpsError, match=message):
        expire(where, Selection(without=("a",)))


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "milvus_lite", None)
    with pytest.raises(KdpsError, match="pymilvus.* is not installed: .* extra 'index'"):
        require_pymilvus()
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(KdpsError, match="faiss-cpu, which is not installed"):
        require_faiss()
