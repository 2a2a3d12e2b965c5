# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Images that a browser sends."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kdps.errors import KdpsError
from kdps.serve import uploads
from kdps.serve.uploads import decode_upload


def as_sent(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def encoded(kind: str, size: tuple[int, int] = (4, 2), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (250, 0, 0)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_images_become_bgr(kind: str) -> None:
    image = decode_upload(as_sent(encoded(kind)), 10_000)
    assert image.shape == (2, 4, 3)
    assert image.flags.c_contiguous
    np.testing.assert_allclose(image[0, 0], [0, 0, 250], atol=8)


def test_photographs_are_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the top is at the right
    assert decode_upload(as_sent(encoded("JPEG", exif=exif)), 10_000).shape == (4, 2, 3)


def test_the_limit_is_exact() -> None:
    content = encoded("PNG")
    assert decode_upload(as_sent(content), len(content)).size
    with pytest.raises(KdpsError, match="upload: the image is larger than"):
        decode_upload(as_sent(content + bytes(3)), len(content))


def test_small_files_of_many_pixels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_PIXELS", 7)
    with pytest.raises(KdpsError, match="upload: 4 x 2 pixels are more than"):
        decode_upload(as_sent(encoded("PNG")), 10_000)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (None, "no image came"),
        ({"path": "/etc/passwd"}, "no image came"),
        ("/etc/passwd", "no image came"),
        ("data:image/png;base64,%%%%", "no image of the kinds JPEG, PNG, BMP"),
        (as_sent(b"plain text"), "no image of the kinds JPEG, PNG, BMP"),
        (as_sent(encoded("GIF")), "no image of the kinds JPEG, PNG, BMP"),
        (as_sent(encoded("PNG", (64, 64))[:-40]), "damaged"),
    ],
)
def test_all_else_is_refused_in_one_line(sent: object, message: str) -> None:
    with pytest.raises(KdpsError, match=message) as caught:
        decode_upload(sent, 10_000)
    assert len(str(caught.value).splitlines()) == 1
