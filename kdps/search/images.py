# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Image files of a search: finding, reading and telling them apart."""

from __future__ import annotations

import filecmp
from pathlib import Path

import numpy as np

from kdps.data.image_file import read_pixels
from kdps.errors import KdpsError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


def find_images(folder: str | Path) -> list[Path]:
    """All image files below a folder, subfolders included, sorted by path.

    Raises:
        KdpsError: the folder is missing, is a file, or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        kind = "is not a folder" if folder.exists() else "does not exist"
        raise KdpsError(f"gallery {folder} {kind}")
    images = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )
    if not images:
        raise KdpsError(f"gallery {folder} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return images


def read_bgr(path: str | Path) -> np.ndarray:
    """Read an image as (H, W, 3) uint8 in BGR order, turned upright by its EXIF tag.

    Raises:
        KdpsError: the file is missing or cannot be decoded.
    """
    return read_pixels(str(path), "BGR")


def same_image(first: Path, second: Path) -> bool:
    """Whether two paths are one file, or files with equal bytes."""
    return first.samefile(second) or filecmp.cmp(first, second, shallow=False)
