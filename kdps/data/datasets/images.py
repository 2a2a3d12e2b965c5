# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Image headers: sizes without decoding, errors that name the file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from kdps.errors import KdpsError, one_line

# Reading headers waits for the disk most of the time, so more threads than cores pay off.
READ_THREADS = min(32, 4 * (os.cpu_count() or 1))
# EXIF orientations that turn the image by 90 degrees; Detectron2 turns such images upright.
_TURNED = (5, 6, 7, 8)


def probe_image(path: str, decode: bool = False) -> tuple[int, int]:
    """Height and width of an image as Detectron2 reads it; ``decode`` reads all pixels as well.

    Raises:
        KdpsError: the file is missing, may not be read, or is no whole image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            if image.getexif().get(ExifTags.Base.Orientation) in _TURNED:
                width, height = height, width
            if decode:
                image.load()
    except FileNotFoundError as error:
        raise KdpsError(f"image {path} does not exist") from error
    except PermissionError as error:
        raise KdpsError(f"no permission to read image {path}") from error
    except Exception as error:  # Pillow's plug-ins fail with many types on damaged files
        raise KdpsError(f"image {path} is damaged ({one_line(error)})") from error
    return height, width


def fill_image_sizes(records: Sequence[dict[str, Any]], source: str | Path) -> None:
    """Set ``height`` and ``width`` of all records from the image headers, in place.

    Args:
        records: the records; a size that one has already must be the image's.
        source: file or folder that the records come from, for messages.

    Raises:
        KdpsError: the first image, in record order, that is missing, unreadable or of another
            size than recorded.
    """
    with ThreadPoolExecutor(READ_THREADS) as pool:
        paths = [record["file_name"] for record in records]
        for record, (height, width) in zip(records, pool.map(probe_image, paths), strict=True):
            fault = size_fault(record, height, width)
            if fault:
                raise KdpsError(f"{source}: {fault}")
            record["height"], record["width"] = height, width


def size_fault(record: dict[str, Any], height: int, width: int) -> str | None:
    """That a record has another size than its image, or None; its size may be missing."""
    recorded = record.get("width", width), record.get("height", height)
    if recorded == (width, height):
        return None
    says = f"its record says {recorded[0]}x{recorded[1]}"
    return f"image {record['file_name']} is {width}x{height}, {says}"
