# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from kdps.errors import KdpsError
from kdps.search.images import find_images, read_bgr, same_image


def write(path: Path, value: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((4, 6, 3), value, dtype=np.uint8))
    return path


def test_finds_images_in_subfolders_sorted(tmp_path: Path) -> None:
    names = ["b.jpg", "a/z.PNG", "a/b/c.bmp", "d.jpeg"]
    for name in names:
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.jpg").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a/b/c.bmp", "a/z.PNG", "b.jpg", "d.jpeg"]


def test_gallery_errors(tmp_path: Path) -> None:
    with pytest.raises(KdpsError, match="missing does not exist"):
        find_images(tmp_path / "missing")
    with pytest.raises(KdpsError, match="holds no image"):
        find_images(tmp_path)
    with pytest.raises(KdpsError, match="is not a folder"):
        find_images(write(tmp_path / "a.png"))


def test_reads_bgr_and_turns_upright(tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 3), dtype=np.uint8)
    pixels[..., 0] = 200  # red in RGB
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[274] = 6  # turn by 90 degrees to show
    image.save(tmp_path / "a.png", exif=exif)
    found = read_bgr(tmp_path / "a.png")
    assert found.shape == (4, 2, 3)
    assert found[0, 0].tolist() == [0, 0, 200]


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(KdpsError, match=r"gone\.jpg does not exist"):
        read_bgr(tmp_path / "gone.jpg")
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(KdpsError, match=r"text\.jpg cannot be read"):
        read_bgr(tmp_path / "text.jpg")
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "whole.jpg"), noise)
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(KdpsError, match=r"cut\.jpg cannot be read") as caught:
        read_bgr(tmp_path / "cut.jpg")
    assert "\n" not in str(caught.value)


def test_same_image_by_link_or_by_bytes(tmp_path: Path) -> None:
    first = write(tmp_path / "a.png", 1)
    (tmp_path / "link.png").symlink_to(first)
    copy = Path(shutil.copy(first, tmp_path / "copy.png"))
    assert same_image(first, tmp_path / "link.png")
    assert same_image(first, copy)
    assert not same_image(first, write(tmp_path / "other.png", 2))
