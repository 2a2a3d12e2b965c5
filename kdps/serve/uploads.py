# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Images that a browser sends."""

from __future__ import annotations

import base64
import binascii
import io

import numpy as np
from PIL import Image, ImageOps

from kdps.errors import KdpsError

FORMATS = ("JPEG", "PNG", "BMP")
# What those are called in a browser's dialog for files.
MEDIA_TYPES = ("image/jpeg", "image/png", "image/bmp")
# A small file can claim to be an image that fills the memory.
MAX_PIXELS = 50_000_000
_MEGA = 1_000_000


def decode_upload(data: object, max_bytes: int) -> np.ndarray:
    """The image that a browser sent, (H, W, 3) uint8 BGR, turned upright by its EXIF tag.

    It is read in memory and is never a file.

    Args:
        data: ``data:...;base64,...`` text, or whatever else came.
        max_bytes: the most bytes of the image.

    Raises:
        KdpsError: it is too large, of another kind or damaged.
    """
    head, _, text = data.partition(",") if isinstance(data, str) else ("", "", "")
    if not head.endswith(";base64"):
        raise KdpsError("upload: no image came")
    # Four characters are three bytes.
    if len(text) * 3 // 4 - 2 > max_bytes:
        raise KdpsError(f"upload: the image is larger than {max_bytes / _MEGA:g} MB")
    try:
        content = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise KdpsError(
                    f"upload: {image.width} x {image.height} pixels are more than "
                    f"{MAX_PIXELS // _MEGA} million"
                )
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except KdpsError:
        raise
    except (binascii.Error, Image.UnidentifiedImageError) as error:
        raise KdpsError(f"upload: this is no image of the kinds {', '.join(FORMATS)}") from error
    # Pillow's decoders raise whatever the damage leads them to (SyntaxError, struct.error, ...).
    except Exception as error:
        raise KdpsError("upload: the image is damaged and cannot be read") from error
    return np.ascontiguousarray(np.asarray(upright)[:, :, ::-1])
