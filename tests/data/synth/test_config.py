# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kdps.data.synth import SynthConfig
from kdps.errors import KdpsError


def test_the_defaults_are_valid():
    SynthConfig().validate()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("train_images", 0),
        ("test_images", 1),
        ("train_ids", 0),
        ("test_ids", -1),
        ("cameras", 0),
        ("scenes", 0),
        ("family", 0),
        ("queries", 0),
        ("seed", -1),
        ("people", (0, 3)),
        ("people", (4, 3)),
        ("strangers", 1.0),
        ("strangers", -0.1),
        ("person_height", (0.5, 0.2)),
        ("person_height", (0.01, 0.2)),
    ],
)
def test_impossible_settings_name_their_field(field, value):
    with pytest.raises(KdpsError, match=field) as error:
        replace(SynthConfig(), **{field: value}).validate()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("width", "height"), [(159, 480), (640, 119)])
def test_tiny_images_are_refused(width, height):
    with pytest.raises(KdpsError, match=f"{width}x{height}"):
        SynthConfig(width=width, height=height).validate()


def test_streams_are_independent_and_repeatable():
    config = SynthConfig(seed=5)
    draws = [
        config.rng(0, 0).random(),
        config.rng(0, 1).random(),
        config.rng(1, 0).random(),
        SynthConfig(seed=6).rng(0, 0).random(),
    ]
    assert len(set(draws)) == 4
    np.testing.assert_equal(config.rng(2, 7).random(5), config.rng(2, 7).random(5))
