# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Removing sightings so that nothing of them stays on the disk."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from kdps.errors import KdpsError
from kdps.index.milvus import MilvusIndex, is_address
from kdps.index.opening import OWN_LOCK, SUFFIX, check_file, hold_file
from kdps.index.selection import Selection
from kdps.utils.exchange import exchange


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


def expire(where: str, selection: Selection, patience: float = 0.0) -> Expired:
    """Remove sightings from an index.

    What is known of their sources (path, camera, size, date) stays, so that no build looks at them
    again.

    Args:
        where: of the index, see ``open_index``.
        selection: what is removed.
        patience: seconds to wait for another process to close a local file.

    Raises:
        KdpsError: the index cannot be opened or written.
    """
    if is_address(where):
        with closing(MilvusIndex(where)) as index:
            return _remove(index, selection)
    check_file(Path(where), may_make=False)
    # A link is not what is to be replaced.
    path = Path(where).resolve()
    try:
        with hold_file(path, patience):
            return _expire_file(path, selection)
    except OSError as error:
        raise KdpsError(f"{where}: what has expired stays ({error.strerror})") from error


def _expire_file(path: Path, selection: Selection) -> Expired:
    """In a local file Milvus Lite only marks what is removed, for how long nobody can say. So what
    is left is written into a new one, and the two change places at once: at every moment there is a
    whole index. Interrupted, all is done by the next call.
    """
    other = path.with_name(f".{path.stem}.kdps-expiry{SUFFIX}")
    with closing(MilvusIndex(str(path))) as index:
        interrupted = other.exists()
        if interrupted:
            shutil.rmtree(other)
        # Tells that what was marked may be there still.
        other.mkdir()
        done = _remove(index, selection)
        rewrite = done.removed or interrupted
        if rewrite:
            (other / OWN_LOCK).touch()
            sources = index.sources()
            with closing(MilvusIndex(str(other), index.identity)) as copy:
                for part in index.scan():
                    copy.upsert(part)
                copy.record(sources)
            _check(other, done.left, len(sources))
    if rewrite:
        # Milvus Lite leaves writing to the system.
        os.sync()
        exchange(path, other)
    shutil.rmtree(other)
    return done


def _check(copied: Path, sightings: int, sources: int) -> None:
    with closing(MilvusIndex(str(copied))) as copy:
        found = len(copy), len(copy.sources())
    if found != (sightings, sources):
        raise KdpsError(
            f"{copied}: has {found[0]} persons of {found[1]} sources where {sightings} of "
            f"{sources} were written; the index is left as it was"
        )


def _remove(index: MilvusIndex, selection: Selection) -> Expired:
    removed = index.remove_selected(selection)
    return Expired(removed, len(index), index.count_undated())
