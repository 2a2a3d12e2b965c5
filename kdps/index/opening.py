# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""From the place of an index to the index."""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdps.errors import KdpsError
from kdps.index.base import ModelIdentity
from kdps.index.milvus import MilvusIndex, is_address
from kdps.utils.output import check_writable

logger = logging.getLogger(__name__)

SUFFIX = ".db"
_LOOK_AGAIN = 0.05


@contextmanager
def open_index(
    where: str, identity: ModelIdentity | None = None, patience: float = 0.0
) -> Iterator[MilvusIndex]:
    """Open an index for as long as the context lasts.

    Args:
        where: a local file that ends in ".db", which one process at a time can have open, or the
            address of a Milvus server.
        identity: creates the index for this model where there is none.
        patience: seconds to wait for another process to close the file.

    Raises:
        KdpsError: it cannot be opened, is not there, or is of another model than ``identity``.
    """
    if not is_address(where):
        _check_file(Path(where), identity is not None)
        _wait_for(Path(where), patience)
    index = MilvusIndex(where, identity)
    try:
        yield index
    finally:
        index.close()


def _check_file(path: Path, may_make: bool) -> None:
    if path.suffix != SUFFIX:
        raise KdpsError(
            f"--index: {path} is neither a local file that ends in {SUFFIX} nor the address of a "
            "Milvus server (http://...)"
        )
    if path.is_file():
        raise KdpsError(f"--index: {path} is not of Milvus Lite 3, which keeps a folder there")
    if path.exists():
        return
    if not may_make:
        raise KdpsError(f"--index: {path} does not exist; kdps gallery build makes it")
    check_writable(path)


def _wait_for(path: Path, patience: float) -> None:
    """Wait until no other process has the file open.

    Milvus Lite would refuse with a trace; should another process be faster after all, it still
    does.
    """
    lock = path / "LOCK"
    deadline = time.monotonic() + patience
    while lock.exists():
        try:
            with open(lock, "rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise KdpsError(
                    f"--index: {path} is in use by another process; wait for it, let several "
                    "processes fill it with --shard, or use a Milvus server"
                ) from None
            time.sleep(_LOOK_AGAIN)
        except OSError as error:
            raise KdpsError(f"--index: {lock} cannot be opened ({error.strerror})") from error
