# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Output folders and files, made or checked before long work begins."""

from __future__ import annotations

import os
from pathlib import Path

from kdps.errors import KdpsError


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it, if it is not there.

    Raises:
        KdpsError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KdpsError(f"{folder}: cannot be made ({error.strerror})") from error


def check_writable(path: Path) -> None:
    """Make the folder of an output file and see that the file can be written there.

    Raises:
        KdpsError: it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KdpsError(f"{path}: its folder cannot be made ({error.strerror})") from error
    if path.is_dir():
        raise KdpsError(f"{path}: is a folder, not a file to write")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise KdpsError(f"{path}: cannot be written (no permission)")
