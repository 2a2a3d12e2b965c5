# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Two files or folders that change places at once."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

# Of linux/fs.h and fcntl.h.
_RENAME_EXCHANGE, _AT_FDCWD = 2, -100


def exchange(one: Path, other: Path) -> None:
    """Give each of two paths what the other had, with no moment in between (Linux).

    Raises:
        OSError: one is not there, they are on different file systems, or this one cannot do it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, "this system cannot exchange two folders", str(one))
    names = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(one))
