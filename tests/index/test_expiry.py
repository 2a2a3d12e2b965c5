# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from footage import make_sightings

from kdps.errors import KdpsError
from kdps.footage.moments import Clock, Moment
from kdps.index import expiry
from kdps.index.base import ModelIdentity
from kdps.index.expiry import Expired, expire
from kdps.index.milvus import MilvusIndex
from kdps.index.opening import open_index
from kdps.index.records import SourceRecord
from kdps.index.selection import Selection
from kdps.index.sightings import Sightings, concatenate

IDENTITY = ModelIdentity("a" * 64, 8)
RECORD = SourceRecord("/footage/a.mp4", "a", "state", 4, True)
# Of five sightings a second apart, the first two.
OLD = Selection(end=Moment(Clock.DATE, 1_500_000))


def dated(count: int, source: str = "/footage/a.mp4") -> Sightings:
    sightings = make_sightings(count, source=source)
    return replace(sightings, clocks=np.full(count, Clock.DATE, dtype=np.int8))


@pytest.fixture
def where(tmp_path: Path) -> str:
    where = str(tmp_path / "index.db")
    with open_index(where, IDENTITY) as index:
        index.upsert(dated(5))
        index.upsert(make_sightings(3, source="/footage/undated.mp4"))
        index.record([RECORD])
    return where


def rows_of(where: str) -> Sightings:
    with open_index(where) as index:
        return concatenate(list(index.scan()))


def bytes_of(where: str) -> bytes:
    """All that lies in the folder of an index."""
    return b"".join(p.read_bytes() for p in sorted(Path(where).rglob("*")) if p.is_file())


def test_nothing_of_the_removed_stays(where: str) -> None:
    gone, kept = dated(5).keys[:2], dated(5).keys[2:]
    assert all(key.encode() in bytes_of(where) for key in [*gone, *kept])
    assert expire(where, OLD) == Expired(removed=2, left=6, undated=3)
    assert not any(key.encode() in bytes_of(where) for key in gone)
    assert all(key.encode() in bytes_of(where) for key in kept)
    assert [path.name for path in Path(where).parent.iterdir()] == ["index.db"]
    rows = rows_of(where)
    expected = concatenate([dated(5), make_sightings(3, source="/footage/undated.mp4")])
    expected = expected.take(~np.isin(expected.keys, gone))
    order, wanted = np.argsort(rows.keys), np.argsort(expected.keys)
    for name, column in vars(expected).items():
        np.testing.assert_array_equal(getattr(rows, name)[order], column[wanted])
    with open_index(where) as index:
        # Whose sightings these were is not looked at again.
        assert index.sources() == [RECORD]
        assert index.identity == IDENTITY


def test_nothing_to_remove(where: str) -> None:
    before = bytes_of(where)
    assert expire(where, Selection(end=Moment(Clock.DATE, -1))) == Expired(0, 8, 3)
    assert len(bytes_of(where)) > 0.5 * len(before)
    assert [path.name for path in Path(where).parent.iterdir()] == ["index.db"]
    assert len(rows_of(where)) == 8


@pytest.mark.parametrize("moment", ["copying", "first rename", "second rename"])
def test_interrupted(where: str, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class InterruptedHereError(Exception):
        pass

    def stop(*_: object) -> None:
        raise InterruptedHereError

    renames: list[Path] = []
    rename = Path.replace

    def maybe(self: Path, target: Path) -> Path:
        renames.append(self)
        if len(renames) == (1 if moment == "first rename" else 2):
            stop()
        return rename(self, target)

    with monkeypatch.context() as patch:
        if moment == "copying":
            patch.setattr(MilvusIndex, "scan", stop)
        else:
            patch.setattr(expiry.Path, "replace", maybe)
        with pytest.raises(InterruptedHereError):
            expire(where, OLD)
    done = expire(where, OLD)
    assert (done.left, done.undated) == (6, 3)
    assert not any(key.encode() in bytes_of(where) for key in dated(5).keys[:2])
    assert [path.name for path in Path(where).parent.iterdir()] == ["index.db"]
    assert len(rows_of(where)) == 6


def test_a_server(server: tuple) -> None:
    where = server[1]
    with open_index(where, IDENTITY) as index:
        index.upsert(dated(5))
    assert expire(where, OLD) == Expired(2, 3, 0)


def test_an_index_in_use_and_none(where: str, tmp_path: Path) -> None:
    with open_index(where), pytest.raises(KdpsError, match="in use by another process"):
        expire(where, OLD)
    with pytest.raises(KdpsError, match="none.db does not exist"):
        expire(str(tmp_path / "none.db"), OLD)
    assert len(rows_of(where)) == 8
