# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from kdps.data.synth import SynthConfig
from kdps.data.synth.camera import Camera, encode, expose, make_camera

NEUTRAL = Camera(gain=(0, 0, 0), gamma=1.0, saturation=1.0, blur=0.3, noise=0.0, quality=90)
GREY = np.full((48, 64, 3), 100, np.uint8)


def rng():
    return np.random.default_rng(0)


def test_cameras_differ_from_each_other_and_between_splits():
    config = SynthConfig(seed=1)
    cameras = [make_camera(config, split, i) for split in ("train", "test") for i in range(3)]
    assert len(set(cameras)) == 6
    assert make_camera(config, "train", 0) == cameras[0]


def test_gain_casts_a_colour():
    picture = expose(GREY, replace(NEUTRAL, gain=(0.3, 0.0, -0.3)), rng())
    blue, green, red = picture.reshape(-1, 3).mean(axis=0)
    assert blue / green == pytest.approx(np.exp(0.3), rel=0.08)
    assert red / green == pytest.approx(np.exp(-0.3), rel=0.08)


def test_saturation_zero_is_grey():
    coloured = np.full((48, 64, 3), (40, 120, 200), np.uint8)
    picture = expose(coloured, replace(NEUTRAL, saturation=0.0), rng()).astype(int)
    assert np.ptp(picture.reshape(-1, 3).mean(axis=0)) < 8
    assert np.ptp(expose(coloured, NEUTRAL, rng()).reshape(-1, 3).mean(axis=0)) > 120


def test_noise_has_the_asked_strength():
    quiet, loud = (expose(GREY, replace(NEUTRAL, noise=n), rng()).std(axis=(0, 1)) for n in (0, 8))
    assert (quiet < 0.5).all()
    np.testing.assert_allclose(loud, 8, rtol=0.35)


def test_blur_softens_edges():
    edge = np.zeros((48, 64, 3), np.uint8)
    edge[:, 32:] = 200
    steepest = [
        np.abs(np.diff(expose(edge, replace(NEUTRAL, blur=b), rng()).astype(int), axis=1)).max()
        for b in (0.2, 2.0)
    ]
    assert steepest[0] > 1.5 * steepest[1]


def test_encode_gives_a_jpeg_of_the_picture():
    picture = cv2.resize(np.array([[[0, 90, 200]], [[200, 90, 0]]], np.uint8), (64, 48))
    data = encode(picture, NEUTRAL, rng())
    assert data[:2] == b"\xff\xd8"
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(decoded.astype(int) - picture).mean() < 6


def test_quality_changes_the_size():
    noisy = expose(GREY, replace(NEUTRAL, noise=15.0), rng())
    low, high = (encode(noisy, replace(NEUTRAL, quality=q), rng()) for q in (50, 92))
    assert len(low) < 0.7 * len(high)
