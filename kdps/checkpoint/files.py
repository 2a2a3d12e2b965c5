# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Files that are whole or absent, whenever the process dies."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from kdps.errors import KdpsError

TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO]:
    """Open a file that appears under ``path`` only when it is completely on disk.

    A reader sees the former file or the new one, never a part. A process killed on the way
    leaves ``path`` + ".tmp" behind, which the next write replaces; a failure takes it away, for on
    a full disk half a file would be in the way of everything else.

    Raises:
        KdpsError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        with open(temporary, mode) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except Exception as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        cause = _os_error(error)
        if cause is None:
            raise
        raise KdpsError(f"{path}: cannot be written ({cause.strerror or cause})") from error


def _os_error(error: BaseException | None) -> OSError | None:
    """The error of the system behind an error, such as that of torch's writer of archives."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _sync_directory(directory: Path) -> None:
    # The rename itself is only on disk once the directory is.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
