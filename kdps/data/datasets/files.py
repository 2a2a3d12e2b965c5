# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Small checks that all loaders make on what they find on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kdps.errors import KdpsError


def require_split(split: str, known: Sequence[str] = ("train", "test")) -> None:
    """Raise ``KdpsError`` for a split the loader does not know."""
    if split not in known:
        raise KdpsError(f"unknown split {split!r}; known are {', '.join(known)}")


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into a ``KdpsError`` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise KdpsError(f"cannot read {path}: {error.strerror}") from error


def exists(path: Path) -> bool:
    """Whether something lies at ``path``.

    Raises:
        KdpsError: one may not look there.
    """
    with reading(path):
        return path.exists()


def list_folder(folder: str | Path) -> list[Path]:
    """What lies in a folder, sorted by name.

    Raises:
        KdpsError: it does not exist, is no folder, or may not be listed or entered.
    """
    folder = Path(folder)
    if not exists(folder):
        raise KdpsError(f"folder {folder} does not exist")
    with reading(folder):
        entries = sorted(folder.iterdir())
        if entries:
            # Fails where a folder may be listed but not entered, whose files seem not to exist.
            entries[0].lstat()
    return entries


def require_entries(root: str | Path, entries: Iterable[str], what: str) -> Path:
    """The root of a data set as a path, when it holds the files and folders of its layout.

    Raises:
        KdpsError: the root or an entry does not exist or may not be looked into.
    """
    root = Path(root)
    list_folder(root)
    for path in (root / entry for entry in entries):
        if not exists(path):
            raise KdpsError(f"{root} is no {what} set: {path} does not exist")
        if path.is_dir():
            list_folder(path)
    return root


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, with any line ends turned into LF.

    Raises:
        KdpsError: the file cannot be read or is no text.
    """
    try:
        with reading(path):
            return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise KdpsError(f"{path} is no text file") from error


def require_unique(names: Sequence[str], source: str | Path) -> None:
    """Raise ``KdpsError`` if a list of image names has none, or one of them twice."""
    if not names:
        raise KdpsError(f"{source} lists no images")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise KdpsError(f"{source} lists image {name!r} {count} times")
