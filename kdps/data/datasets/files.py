# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Small checks that all loaders make on what they find on disk."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from kdps.errors import KdpsError


def require_split(split: str, known: Sequence[str] = ("train", "test")) -> None:
    """Raise ``KdpsError`` for a split the loader does not know."""
    if split not in known:
        raise KdpsError(f"unknown split {split!r}; known are {', '.join(known)}")


def require_entries(root: str | Path, entries: Iterable[str], what: str) -> Path:
    """The root of a data set as a path, when it holds the files and folders of its layout.

    Raises:
        KdpsError: the root or an entry does not exist or may not be looked into.
    """
    root = Path(root)
    for path in (root, *(root / entry for entry in entries)):
        try:
            path.stat()
            if path.is_dir():
                os.listdir(path)
        except FileNotFoundError:
            if path == root:
                raise KdpsError(f"folder {root} of the {what} set does not exist") from None
            raise KdpsError(f"{root} is no {what} set: {path} does not exist") from None
        except OSError as error:
            raise KdpsError(f"cannot read {path}: {error.strerror}") from error
    return root


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, with any line ends turned into LF.

    Raises:
        KdpsError: the file cannot be read or is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise KdpsError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise KdpsError(f"{path} is no text file") from error


def require_unique(names: Sequence[str], source: str | Path) -> None:
    """Raise ``KdpsError`` if a list of image names has none, or one of them twice."""
    if not names:
        raise KdpsError(f"{source} lists no images")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise KdpsError(f"{source} lists image {name!r} {count} times")
