# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image

from kdps.data.datasets.images import fill_image_sizes, probe_image
from kdps.errors import KdpsError


def test_size_is_height_then_width(tmp_path):
    path = str(tmp_path / "a.png")
    Image.new("RGB", (30, 20)).save(path)
    assert probe_image(path) == (20, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_image_as_detectron2_reads_it(tmp_path, orientation):
    path = str(tmp_path / "a.jpg")
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    assert probe_image(path) == read_image(path, format="BGR").shape[:2]


def test_decode_finds_what_the_header_hides(tmp_path):
    path = tmp_path / "a.jpg"
    Image.effect_noise((300, 200), 50).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    assert probe_image(str(path)) == (200, 300)
    with pytest.raises(KdpsError, match=r"image .*a\.jpg is damaged \(image file is truncated"):
        probe_image(str(path), decode=True)


def test_the_first_bad_image_is_named(tmp_path):
    names = [str(tmp_path / f"{i}.png") for i in range(5)]
    for name in names:
        Image.new("RGB", (8, 6)).save(name)
    (tmp_path / "2.png").write_bytes(b"no picture")
    (tmp_path / "4.png").unlink()
    with pytest.raises(KdpsError, match=r"image .*2\.png is damaged"):
        fill_image_sizes([{"file_name": name} for name in names], tmp_path)


def test_a_recorded_size_has_to_be_the_images(tmp_path):
    name = str(tmp_path / "a.png")
    Image.new("RGB", (8, 6)).save(name)
    record = {"file_name": name, "width": 8}
    fill_image_sizes([record], "people.json")
    assert (record["height"], record["width"]) == (6, 8)
    with pytest.raises(
        KdpsError, match=r"^people\.json: image .*a\.png is 8x6, its record says 8x9"
    ):
        fill_image_sizes([{"file_name": name, "height": 9}], "people.json")
