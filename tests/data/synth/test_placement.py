# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
import pytest

from kdps.data.synth import SynthConfig
from kdps.data.synth.identity import make_population
from kdps.data.synth.placement import place
from kdps.data.synth.scene import MEAN_HEIGHT, make_scene

CONFIG = SynthConfig(train_ids=12)
PEOPLE = tuple(make_population(CONFIG, "train")[:8])


@pytest.fixture(scope="module")
def scene():
    return make_scene(CONFIG, "train", 0, 0)


def test_feet_stand_on_the_ground_and_heights_follow_perspective(scene):
    for seed in range(10):
        for spot in place(scene, PEOPLE, np.random.default_rng(seed), CONFIG.width):
            assert int(scene.farthest) <= spot.y <= scene.nearest
            assert 0 <= spot.x < CONFIG.width
            expected = scene.person_pixels(spot.y) * spot.identity.height / MEAN_HEIGHT
            # the row is rounded after the height is taken
            assert spot.pixels == pytest.approx(expected, abs=2)


def test_people_keep_their_order(scene):
    spots = place(scene, PEOPLE, np.random.default_rng(0), CONFIG.width)
    assert [spot.identity for spot in spots] == list(PEOPLE)


def test_people_seldom_stand_behind_each_other(scene):
    hidden = []
    for seed in range(40):
        spots = place(scene, PEOPLE, np.random.default_rng(seed), CONFIG.width)
        for far in spots:
            hidden.append(
                any(
                    near.y > far.y
                    and abs(near.x - far.x) < 0.1 * near.pixels
                    and near.y - near.pixels < far.y - 0.8 * far.pixels
                    for near in spots
                )
            )
    assert np.mean(hidden) < 0.02
