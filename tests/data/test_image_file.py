# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from unittest import mock

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image

from kdps.data.image_file import read_pixels
from kdps.errors import KdpsError

FORMATS = ("BGR", "RGB")
ORIENTATION = 0x0112


def picture(mode="RGB"):
    """Of 37 x 26 pixels, smooth, so that JPEG keeps what it shows."""
    y, x = np.mgrid[0:26, 0:37]
    pixels = np.stack([6 * x, 9 * y, 3 * x + 4 * y], axis=2).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def save(path, mode="RGB", orientation=None, **options):
    image = picture(mode)
    exif = image.getexif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    image.save(path, exif=exif, **options)
    return str(path)


def pillow_untouched(path, image_format):
    """What is read where Detectron2's reader must not be asked."""
    with mock.patch("kdps.data.image_file.detection_utils.read_image", side_effect=AssertionError):
        return read_pixels(path, image_format)


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_pixels_are_those_of_pillow(tmp_path, image_format, mode, subsampling):
    path = save(tmp_path / "a.jpg", mode, quality=83, subsampling=subsampling)
    found = pillow_untouched(path, image_format)
    np.testing.assert_array_equal(found, read_image(path, format=image_format))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_upright(tmp_path, orientation):
    path = save(tmp_path / "a.jpg", orientation=orientation, quality=95)
    found = read_pixels(path, "BGR")
    np.testing.assert_array_equal(found, read_image(path, format="BGR"))
    assert found.shape == ((26, 37, 3) if orientation < 5 else (37, 26, 3))


def test_a_jpeg_is_turned_upright_by_xmp(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    path = save(tmp_path / "a.jpg", xmp=xmp)
    found = read_pixels(path, "BGR")
    np.testing.assert_array_equal(found, read_image(path, format="BGR"))
    assert found.shape == (37, 26, 3)


def test_a_progressive_jpeg(tmp_path):
    path = save(tmp_path / "a.jpg", progressive=True)
    np.testing.assert_array_equal(pillow_untouched(path, "BGR"), read_image(path, format="BGR"))


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize(
    ("name", "mode"), [("a.png", "RGB"), ("a.png", "P"), ("a.bmp", "RGB"), ("a.jpg", "CMYK")]
)
def test_other_files_are_read_by_detectron2(tmp_path, image_format, name, mode):
    path = save(tmp_path / name, mode)
    found = read_pixels(path, image_format)
    np.testing.assert_array_equal(found, read_image(path, format=image_format))


def test_other_formats_are_those_of_detectron2(tmp_path):
    path = save(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_pixels(path, "L"), read_image(path, format="L"))


@pytest.mark.parametrize("left", [0, 2, 50, 400, -2])
def test_a_file_that_is_cut_off_is_no_image(tmp_path, left):
    path = tmp_path / "a.jpg"
    save(path, quality=95)
    path.write_bytes(path.read_bytes()[:left])
    reason = r"a\.jpg cannot be read: .*(cannot identify|[Tt]runcated|broken)"
    with pytest.raises(KdpsError, match=reason):
        read_pixels(str(path), "BGR")


def test_a_damaged_header_is_no_image(tmp_path):
    path = tmp_path / "a.jpg"
    save(path)
    content = bytearray(path.read_bytes())
    content[2:40] = bytes(38)
    path.write_bytes(content)
    with pytest.raises(KdpsError, match=r"a\.jpg cannot be read: cannot identify"):
        read_pixels(str(path), "BGR")


def test_a_missing_file(tmp_path):
    with pytest.raises(KdpsError, match=r"image .*a\.jpg does not exist$"):
        read_pixels(str(tmp_path / "a.jpg"), "BGR")
