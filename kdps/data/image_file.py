# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Reading image files."""

from __future__ import annotations

import io

import cv2
import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image

# A JPEG file ends with this marker, or soon after it.
_END, _TAIL = b"\xff\xd9", 1024


def read_pixels(path: str, image_format: str) -> np.ndarray:
    """(H, W, 3) uint8 pixels of an image file, turned upright by its EXIF tag.

    JPEG files in colour or grey are decoded by OpenCV, faster than by Pillow and with the same
    pixels. All else is left to Detectron2's reader, and so to Pillow, which knows more formats and
    tells what is wrong with a damaged file.

    Args:
        path: a local path, or an address that Detectron2's ``PathManager`` knows.
        image_format: "BGR", "RGB" or another one of Detectron2's reader.

    Raises:
        Exception: of any type; the file is missing or damaged.
    """
    if image_format in ("BGR", "RGB"):
        with PathManager.open(path, "rb") as stream:
            image = _decode_jpeg(stream.read())
        if image is not None:
            # A view with turned channels would be copied by whatever comes next, slowly.
            return image if image_format == "BGR" else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return detection_utils.read_image(path, format=image_format)


def _decode_jpeg(content: bytes) -> np.ndarray | None:
    """BGR pixels; None of what is no whole JPEG file in colour or grey."""
    if not content.startswith(b"\xff\xd8") or _END not in content[-_TAIL:]:
        return None
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            mode = image.mode
    except Exception:  # noqa: BLE001  Pillow is asked again, and tells
        return None
    if mode not in ("RGB", "L"):
        # Four inks become colours in a way of one's own in each library.
        return None
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
