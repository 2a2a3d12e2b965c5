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


@pytest.mark.parametrize("moment", ["copying", "exchange", "clearing"])
def test_interrupted(where: str, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class InterruptedHereError(Exception):
        pass

    def stop(*_: object) -> None:
        raise InterruptedHereError

    with monkeypatch.context() as patch:
        if moment == "copying":
            patch.setattr(MilvusIndex, "scan", stop)
        elif moment == "exchange":
            patch.setattr(expiry, "exchange", stop)
        else:
            patch.setattr(expiry.shutil, "rmtree", stop)
        with pytest.raises(InterruptedHereError):
            expire(where, OLD)
    # Whoever comes in between finds all that is left.
    with open_index(where, IDENTITY) as index:
        assert len(index) == 6
        index.upsert(dated(1, source="/footage/new.mp4"))
    done = expire(where, Selection(end=Moment(Clock.DATE, -1)))
    assert (done.left, done.undated) == (7, 3)
    assert not any(key.encode() in bytes_of(where) for key in dated(5).keys[:2])
    assert [path.name for path in Path(where).parent.iterdir()] == ["index.db"]
    assert len(rows_of(where)) == 7


def test_a_copy_that_is_not_whole_replaces_nothing(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(MilvusIndex, "scan", lambda _: iter([dated(1)]))
        with pytest.raises(KdpsError, match="has 1 persons of 1 sources where 6 of 1 were written"):
            expire(where, OLD)
    assert len(rows_of(where)) == 6


def test_behind_a_link(where: str, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(where)
    assert expire(str(link), OLD).left == 6
    assert link.is_symlink()
    assert not any(key.encode() in bytes_of(where) for key in dated(5).keys[:2])
    assert len(rows_of(str(link))) == 6


def test_a_file_system_that_cannot(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    with monkeypatch.context() as patch:
        patch.setattr(expiry, "exchange", refuse)
        with pytest.raises(KdpsError, match=r"index.db: what has expired stays \(Invalid argument"):
            expire(where, OLD)
    assert len(rows_of(where)) == 6


def test_everything_is_not_removed_by_mistake(where: str) -> None:
    with pytest.raises(KdpsError, match="everything would be removed"):
        expire(where, Selection())
    assert len(rows_of(where)) == 8


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
    (tmp_path / "photos.db").mkdir()
    with pytest.raises(KdpsError, match="holds no gallery"):
        expire(str(tmp_path / "photos.db"), OLD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.db", "photos.db"]
    assert len(rows_of(where)) == 8
