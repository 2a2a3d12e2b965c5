# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""From the place of an index to the index."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from kdps.errors import KdpsError
from kdps.index.base import ModelIdentity
from kdps.index.milvus import MilvusIndex, is_address
from kdps.utils.output import check_writable

SUFFIX = ".db"
# Name of the file in the folder that kdps locks.
OWN_LOCK = "KDPS_LOCK"
_MILVUS_LOCK = "LOCK"
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
    with ExitStack() as stack:
        if not is_address(where):
            check_file(Path(where), may_make=identity is not None)
            stack.enter_context(hold_file(Path(where), patience))
        index = MilvusIndex(where, identity)
        stack.callback(index.close)
        yield index


def check_file(path: Path, *, may_make: bool) -> None:
    """Check the place of a local index, and that one is there unless it may be made."""
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


def hold_file(path: Path, patience: float) -> ExitStack:
    """Hold an index file, which Milvus Lite keeps a folder for, until the result is closed.

    Milvus Lite does not wait, and refuses with a trace. So processes of kdps wait for a lock of
    their own, and see whether anybody else has the file open before they open it.
    """
    deadline = time.monotonic() + patience
    try:
        path.mkdir(exist_ok=True)
        with ExitStack() as stack:
            own = stack.enter_context(open(path / OWN_LOCK, "ab"))
            _lock(own, path, deadline)
            if not os.path.samestat(os.fstat(own.fileno()), (path / OWN_LOCK).stat()):
                # Whoever held it put another folder in its place.
                return hold_file(path, deadline - time.monotonic())
            if (path / _MILVUS_LOCK).exists():
                with open(path / _MILVUS_LOCK, "rb+") as foreign:
                    _lock(foreign, path, deadline)
            return stack.pop_all()
    except OSError as error:
        raise KdpsError(f"--index: {path} cannot be opened ({error.strerror})") from error


def _lock(file: IO[bytes], path: Path, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise KdpsError(
                    f"--index: {path} is in use by another process; wait for it, let several "
                    "processes fill it with --shard, or use a Milvus server"
                ) from None
            time.sleep(_LOOK_AGAIN)
