# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What took long to read from a file of a data set, kept for the next time.

The folder is ``$KDPS_CACHE``, by default ``$XDG_CACHE_HOME/kdps`` or ``~/.cache/kdps``. An empty
``KDPS_CACHE``, or 0, turns the cache off. The folder may be deleted at any time.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kdps.data.datasets.files import reading
from kdps.errors import one_line

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20


def cache_folder() -> Path | None:
    """Where the cache is, whether or not it exists yet; None if there should be none."""
    chosen = os.environ.get("KDPS_CACHE")
    if chosen is not None:
        return None if chosen in ("", "0") else Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(base or Path.home() / ".cache") / "kdps"
    except RuntimeError:  # a user without a home
        return None


def cached_arrays(
    kind: str, source: str | Path, compute: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """What ``compute`` makes of a file, from the cache if it was computed before.

    A cache that cannot be read or written is a warning, never an error.

    Args:
        kind: what the arrays are, with a number that changes with their meaning ("galleries-1").
        source: the file; its content is the key, so that neither its place nor its time matters.
        compute: reads the file; its arrays may not hold Python objects.

    Raises:
        KdpsError: the file cannot be read; and whatever ``compute`` raises.
    """
    folder = cache_folder()
    if folder is None:
        return compute()
    path = folder / f"{kind}-{_digest(source)}.npz"
    arrays = _load(path)
    if arrays is None:
        arrays = compute()
        _store(path, arrays)
    return arrays


def _digest(source: str | Path) -> str:
    digest = hashlib.sha256()
    with reading(source), open(source, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _load(path: Path) -> dict[str, np.ndarray] | None:
    try:
        # The archive has a checksum of each array.
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn_once(f"the cache in {path.parent} cannot be read ({error.strerror or error})")
        return None
    except Exception as error:  # a damaged archive makes NumPy's reader fail with almost anything
        logger.warning("%s is damaged and will be written anew (%s)", path, one_line(error))
        return None


def _store(path: Path, arrays: dict[str, np.ndarray]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Each writer has a folder of its own, so that several may write the same file at once.
        with tempfile.TemporaryDirectory(prefix="writing-", dir=path.parent) as scratch:
            own = Path(scratch) / path.name
            np.savez(own, **arrays)
            os.replace(own, path)
    except OSError as error:
        _warn_once(f"the cache in {path.parent} cannot be written ({error.strerror or error})")


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning("%s; KDPS_CACHE names another folder, or turns it off with 0", message)
