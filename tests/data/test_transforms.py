# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.data import transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st

from kdps.data.transforms import FloatResizeTransform, ResizeShortestEdgeFloor, floored_size

SHARED = os.environ.get("KDPS_SHARED")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1080, 1920), (843, 1500)),
        ((576, 720), (900, 1125)),
        ((100, 300), (500, 1500)),
        ((900, 1500), (900, 1500)),
        ((1, 3000), (1, 1500)),
        # 900 / 51 in float32, times 51, stays below 900.
        ((51, 61), (899, 1076)),
    ],
)
def test_floored_size(size, expected):
    assert floored_size(*size, 900, 1500) == expected


@given(h=st.integers(8, 300), w=st.integers(8, 300), length=st.integers(8, 200))
@settings(max_examples=50, deadline=None)
def test_resize_is_that_of_a_scale_factor(h, w, length):
    """The published detectors hand a scale to ``interpolate``, not a size."""
    image = np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8)
    scale = min(np.float32(length) / np.float32(min(h, w)), np.float32(250) / np.float32(max(h, w)))
    expected = F.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None].float(),
        scale_factor=float(scale),
        mode="bilinear",
        recompute_scale_factor=True,
        align_corners=False,
    )[0]
    resized = ResizeShortestEdgeFloor(length, 250).get_transform(image).apply_image(image)
    assert resized.dtype == np.float32
    np.testing.assert_array_equal(resized, expected.permute(1, 2, 0).numpy())


def test_bilinear_by_hand():
    # Two pixels to four: centres at -0.25, 0.25, 0.75, 1.25 of the old ones; no rounding.
    transform = FloatResizeTransform(1, 2, 1, 4)
    image = np.array([[[0], [10]]], dtype=np.uint8)
    assert transform.apply_image(image)[0, :, 0].tolist() == [0, 2.5, 7.5, 10]
    # To a third without anti-aliasing only the middle pixel counts.
    image = np.array([[0, 6, 0, 0, 9, 0]], dtype=np.uint8)
    assert FloatResizeTransform(1, 6, 1, 2).apply_image(image)[0].tolist() == [6, 9]


def test_boxes_scale_per_axis_and_back():
    transform = FloatResizeTransform(1080, 1920, 843, 1500)
    box = transform.apply_box(np.array([[0, 0, 1920, 1080], [192, 108, 384, 540]]))
    np.testing.assert_allclose(box, [[0, 0, 1500, 843], [150, 84.3, 300, 421.5]])
    np.testing.assert_allclose(
        transform.inverse().apply_box(box), [[0, 0, 1920, 1080], [192, 108, 384, 540]]
    )


def test_labels_stay_labels():
    labels = np.array([[3, 7]], dtype=np.uint8)
    resized = FloatResizeTransform(1, 2, 2, 4).apply_segmentation(labels)
    assert resized.dtype == np.uint8
    assert resized.tolist() == [[3, 3, 7, 7]] * 2


def test_another_image_size_is_refused():
    with pytest.raises(ValueError, match="the transform is for"):
        FloatResizeTransform(4, 4, 8, 8).apply_image(np.zeros((4, 5, 3)))


def test_lengths_are_drawn():
    image = np.zeros((16, 20, 3), dtype=np.uint8)
    np.random.seed(0)
    choice = ResizeShortestEdgeFloor((20, 30), 1000)
    assert {choice.get_transform(image).new_h for _ in range(30)} == {20, 30}
    interval = ResizeShortestEdgeFloor((20, 22), 1000, "range")
    assert {interval.get_transform(image).new_h for _ in range(60)} == {20, 21, 22}
    assert isinstance(ResizeShortestEdgeFloor(0, 9).get_transform(image), T.NoOpTransform)
    with pytest.raises(ValueError, match="sample_style"):
        ResizeShortestEdgeFloor(20, 30, "all")


@pytest.mark.skipif(not SHARED, reason="KDPS_SHARED is not set")
@pytest.mark.parametrize("case", range(6))
def test_published_preprocessing(case):
    """Input tensors recorded from SeqNet: normalised first, then resized and padded."""
    spec = importlib.util.spec_from_file_location("kit", Path(SHARED) / "parity" / "kit.py")
    kit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kit)
    recorded = np.load(Path(SHARED) / "parity" / "seqnet" / "expected.npz")
    h, w = recorded[f"pre/{case}/in_size"]
    image = kit.make_image(f"pre{case}", h, w)

    resized = ResizeShortestEdgeFloor(900, 1500).get_transform(image).apply_image(image)
    assert list(resized.shape[:2]) == recorded[f"pre/{case}/resized_size"].tolist()
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    padded = np.zeros(recorded[f"pre/{case}/tensor/shape"][1:])
    new_h, new_w = resized.shape[:2]
    padded[:, :new_h, :new_w] = ((resized / 255 - mean) / std).transpose(2, 0, 1)
    probe = padded.ravel()[kit.probe_indices(padded.size)]
    np.testing.assert_allclose(probe, recorded[f"pre/{case}/tensor/probe"], atol=2e-5)
    mean_std = [padded.mean(), padded.std(), np.abs(padded).max()]
    np.testing.assert_allclose(mean_std, recorded[f"pre/{case}/tensor/mean_std"], rtol=1e-5)


def test_sides_and_their_bounds_are_drawn_together():
    resize = ResizeShortestEdgeFloor([40, 80], [60, 100])
    image = np.zeros((50, 90, 3), dtype=np.uint8)
    np.random.seed(0)
    sizes = {resize.get_transform(image).apply_image(image).shape[:2] for _ in range(20)}
    # 90 is bounded to 60 or to 100.
    assert sizes == {(33, 60), (55, 100)}


@pytest.mark.parametrize(("lengths", "style"), [([40], "choice"), ([40, 80], "range")])
def test_as_many_bounds_as_lengths(lengths, style):
    with pytest.raises(ValueError, match="2 bounds of the longer side need as many lengths"):
        ResizeShortestEdgeFloor(lengths, [60, 100], style)
