# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import cv2
import numpy as np
import pytest

from kdps.config import get_cfg
from kdps.data.dataset_mapper import build_augmentation
from kdps.data.opencv_resize import (
    OpenCVResizeTransform,
    OpenCVSizeTransform,
    ResizeShortestEdgeOpenCV,
    ResizeShortestEdgeOpenCVUint8,
)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((480, 640), 1.25, (600, 800)),
        # 562.5 and 333.3 are rounded, to the even number and down.
        ((1080, 1920), 1000 / 1920, (562, 1000)),
        ((100, 300), 1000 / 300, (333, 1000)),
        # 1000.4 is rounded to the bound, so nothing bounds it.
        ((451, 752), 600 / 451, (600, 1000)),
    ],
)
def test_sizes(size, scale, expected):
    image = np.zeros((*size, 3), dtype=np.uint8)
    transform = ResizeShortestEdgeOpenCV(600, 1000).get_transform(image)
    assert transform.scale == pytest.approx(scale)
    assert transform.apply_image(image).shape == (*expected, 3)


def test_pixels_are_float_and_not_averaged():
    row = np.array([[0, 10, 20, 30, 40, 50, 60, 70]], dtype=np.uint8).repeat(8, axis=0)
    half = OpenCVResizeTransform(0.25).apply_image(row)
    assert half.dtype == np.float32
    # Output pixel 0 is at input 1.5, pixel 1 at 5.5.
    np.testing.assert_allclose(half[0], [15.0, 55.0])


def test_coordinates_are_scaled_by_the_factor_not_by_the_rounded_sides():
    transform = OpenCVResizeTransform(1000 / 1920)
    corner = transform.apply_coords(np.array([[1920.0, 1080.0]]))
    np.testing.assert_allclose(corner, [[1000.0, 562.5]])
    np.testing.assert_allclose(transform.inverse().apply_coords(corner), [[1920.0, 1080.0]])


def test_labels_stay_labels():
    labels = np.array([[1, 1, 7, 7]] * 4, dtype=np.uint8)
    assert set(np.unique(OpenCVResizeTransform(2.0).apply_segmentation(labels))) == {1, 7}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (900, 1200)),
        # 843.75 is rounded.
        ((1080, 1920), (844, 1500)),
        ((576, 720), (900, 1125)),
        ((100, 300), (500, 1500)),
    ],
)
def test_sizes_of_uint8_pixels(size, expected):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    transform = ResizeShortestEdgeOpenCVUint8(900, 1500).get_transform(image)
    resized = transform.apply_image(image)
    assert resized.dtype == np.uint8
    np.testing.assert_array_equal(resized, cv2.resize(image, expected[::-1]))
    # Each axis is scaled by its own rounded side.
    corner = transform.apply_coords(np.array([[size[1], size[0]]], dtype=np.float64))
    np.testing.assert_allclose(corner, [expected[::-1]])
    assert isinstance(transform.inverse(), OpenCVSizeTransform)


@pytest.mark.parametrize(
    ("name", "resize"),
    [
        ("shortest_edge_opencv", ResizeShortestEdgeOpenCV),
        ("shortest_edge_opencv_uint8", ResizeShortestEdgeOpenCVUint8),
    ],
)
def test_named_in_the_config(name, resize):
    cfg = get_cfg()
    cfg.INPUT.RESIZE = name
    for is_train in (True, False):
        assert type(build_augmentation(cfg, is_train)[0]) is resize
