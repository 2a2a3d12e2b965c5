# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Reading image files."""

from __future__ import annotations

import io

import cv2
import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image

from kdps.errors import KdpsError, one_line

# A JPEG file starts with the one marker and ends with the other, or soon after it.
_START, _END, _TAIL = b"\xff\xd8", b"\xff\xd9", 1024
# EXIF's tag, and its value of an image that is not turned.
_ORIENTATION, _UPRIGHT = 0x0112, 1


def read_pixels(path: str, image_format: str) -> np.ndarray:
    """(H, W, 3) uint8 pixels of an image file, turned upright by its EXIF tag.

    JPEG files in colour or grey that stand upright are decoded by OpenCV, faster than by Pillow and
    with the same pixels. All else is left to Detectron2's reader, and so to Pillow, which knows
    more formats and tells what is wrong with a damaged file.

    Args:
        path: a local path, or an address that Detectron2's ``PathManager`` knows.
        image_format: "BGR", "RGB" or another one of Detectron2's reader.

    Raises:
        KdpsError: the file is missing or damaged.
    """
    try:
        image = _read_jpeg(path) if image_format in ("BGR", "RGB") else None
        if image is None:
            return detection_utils.read_image(path, format=image_format)
    except FileNotFoundError as error:
        raise KdpsError(f"image {path} does not exist") from error
    except Exception as error:  # Pillow's plug-ins fail with many types on damaged files
        raise KdpsError(f"image {path} cannot be read: {one_line(error)}") from error
    # A view with turned channels would be copied by whatever comes next, slowly.
    return image if image_format == "BGR" else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _read_jpeg(path: str) -> np.ndarray | None:
    """BGR pixels; None of what :func:`_decode_jpeg` leaves to Pillow."""
    with PathManager.open(path, "rb") as stream:
        start = stream.read(len(_START))
        return _decode_jpeg(start + stream.read()) if start == _START else None


def _decode_jpeg(content: bytes) -> np.ndarray | None:
    """BGR pixels; None of what is no whole JPEG file in colour or grey that stands upright."""
    if _END not in content[-_TAIL:]:
        return None
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            mode, orientation = image.mode, image.getexif().get(_ORIENTATION, _UPRIGHT)
    except Exception:  # noqa: BLE001  Pillow is asked again, and tells
        return None
    # Four inks become colours in another way in each library, and Pillow looks for the orientation
    # in more places.
    if mode not in ("RGB", "L") or orientation != _UPRIGHT:
        return None
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
