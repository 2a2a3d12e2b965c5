# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
import pytest

from kdps.data.synth import SynthConfig
from kdps.data.synth.props import KINDS, SIZES, draw_prop
from kdps.data.synth.scene import make_scene

CONFIG = SynthConfig(width=200, height=150, cameras=2, scenes=2, person_height=(0.16, 0.5))
ALL = [(split, c, s) for split in ("train", "test") for c in range(2) for s in range(2)]


def test_no_two_places_look_alike():
    backdrops = [make_scene(CONFIG, *key).backdrop for key in ALL]
    for i, a in enumerate(backdrops):
        assert a.shape == (150, 200, 3)
        for b in backdrops[:i]:
            assert np.abs(a.astype(int) - b).mean() > 8


@pytest.mark.parametrize("key", ALL)
def test_people_have_the_asked_heights(key):
    scene = make_scene(CONFIG, *key)
    smallest, largest = (scene.person_pixels(row) for row in (scene.farthest, scene.nearest))
    assert smallest == pytest.approx(0.16 * CONFIG.height)
    assert 0.84 * 0.5 < largest / CONFIG.height <= 0.5
    assert scene.horizon < scene.farthest < scene.nearest


@pytest.mark.parametrize("key", ALL)
def test_things_are_ordered_from_far_to_near(key):
    rows = [prop.y for prop in make_scene(CONFIG, *key).props]
    assert rows == sorted(rows)
    assert 3 <= len(rows) <= 7


@pytest.mark.parametrize("kind", KINDS)
def test_things_have_their_size_and_stand_on_their_origin(kind):
    width, height = SIZES[kind]
    sprite = draw_prop(kind, np.random.default_rng(0), metre=40.0, light=0.5)
    rows, columns = np.nonzero(sprite.alpha > 0.5)
    assert rows.max() - rows.min() <= 40 * height + 1
    assert columns.max() - columns.min() <= 40 * width + 1
    assert rows.max() - rows.min() > 0.7 * 40 * height
    assert rows.max() == pytest.approx(sprite.origin[1], abs=4)
