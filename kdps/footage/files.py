# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Whether a file is what it was, and can be read at all."""

from __future__ import annotations

from pathlib import Path

_MISSING = "missing"
_BYTES_AT_ONCE = 1 << 20


def file_state(path: Path) -> str:
    """Size and time of the last change, in words; "missing" if they cannot be had."""
    try:
        status = path.stat()
    except OSError:
        return _MISSING
    return f"{status.st_size} bytes, changed {status.st_mtime_ns}"


def can_be_read(path: Path, state: str) -> bool:
    """Whether a file is still in a state and gives all its bytes.

    If so, what a decoder finds wrong with it is in its content. Otherwise the cause may pass: a
    share that is away, a disk that fails, a permission.

    Args:
        path: of the file.
        state: what ``file_state`` said.
    """
    try:
        with path.open("rb") as file:
            while file.read(_BYTES_AT_ONCE):
                pass
    except OSError:
        return False
    return state != _MISSING and file_state(path) == state
