# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Removing sightings so that nothing of them stays on the disk."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from kdps.index.milvus import MilvusIndex, is_address
from kdps.index.opening import OWN_LOCK, SUFFIX, check_file, hold_file
from kdps.index.selection import Selection


@dataclass(frozen=True)
class Expired:
    """What an expiry has done.

    Attributes:
        removed: sightings.
        left: sightings that the index holds now.
        undated: of these, those without a date.
    """

    removed: int
    left: int
    undated: int


def expire(where: str, selection: Selection) -> Expired:
    """Remove sightings from an index.

    What is known of their sources stays, so that no build looks at them again.

    Args:
        where: of the index, see ``open_index``.
        selection: what is removed.

    Raises:
        KdpsError: the index cannot be opened or written.
    """
    if is_address(where):
        with closing(MilvusIndex(where)) as index:
            return _remove(index, selection)
    return _expire_file(Path(where), selection)


def _expire_file(path: Path, selection: Selection) -> Expired:
    """In a local file Milvus Lite only marks what is removed, for how long nobody can say. So what
    is left is written into a new file, which takes the place of the old one. Interrupted at any
    moment, it is done by the next call.
    """
    fresh, stale = (path.with_name(path.stem + end + SUFFIX) for end in (".rewritten", ".expired"))
    if stale.exists() and fresh.exists() and not path.exists():
        fresh.replace(path)
    check_file(path, may_make=False)
    with hold_file(path, patience=0.0):
        interrupted = fresh.exists()
        for rest in (fresh, stale):
            shutil.rmtree(rest, ignore_errors=True)
        # Tells that what was marked may be there still.
        fresh.mkdir()
        with closing(MilvusIndex(str(path))) as index:
            done = _remove(index, selection)
            rewrite = done.removed or interrupted
            if rewrite:
                (fresh / OWN_LOCK).touch()
                with closing(MilvusIndex(str(fresh), index.identity)) as copy:
                    for part in index.scan():
                        copy.upsert(part)
                    copy.record(index.sources())
        if rewrite:
            path.replace(stale)
            fresh.replace(path)
        shutil.rmtree(stale if rewrite else fresh)
    return done


def _remove(index: MilvusIndex, selection: Selection) -> Expired:
    removed = index.remove_selected(selection)
    return Expired(removed, len(index), index.count_undated())
