# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from kdps.data.synth import textures
from kdps.data.synth.identity import HAIRS, PATTERNS, Style

PLAIN = {"cut": "t-shirt", "lower": "trousers", "bag": "none", "hair": "short", "build": "average"}
FRONT, BACK, SIDE = 0.0, math.pi - 1e-6, math.pi / 2


def style(**changes) -> Style:
    return Style(**{"pattern": "plain", **PLAIN, **changes})


def look(texture, azimuth, along):
    azimuth, along = np.broadcast_arrays(np.atleast_1d(azimuth), np.atleast_1d(along))
    return texture(azimuth.astype(float), along.astype(float)).tolist()


def grid(texture):
    azimuth, along = np.meshgrid(np.linspace(-1.5, 1.5, 61), np.linspace(0, 1, 50))
    return texture(azimuth, along)


def test_patterns_differ_from_each_other_in_front():
    seen = {name: grid(textures.PATTERN_FUNCTIONS[name]) for name in PATTERNS}
    for a, b in combinations(PATTERNS, 2):
        assert np.mean(seen[a] != seen[b]) > 0.1, (a, b)


@pytest.mark.parametrize(
    ("pattern", "azimuth", "along", "expected"),
    [
        ("plain", 0.3, 0.3, 0),
        ("two-tone", FRONT, [0.2, 0.8], [0, 1]),
        ("horizontal", FRONT, [0.05, 0.2, 0.35], [0, 1, 0]),
        ("vertical", [0.0, math.pi / 12], 0.5, [0, 1]),
        ("checks", [0.05, 0.05, 0.45, 0.45], [0.1, 0.2, 0.1, 0.2], [0, 1, 1, 0]),
        ("chest-block", [FRONT, SIDE], 0.4, [1, 0]),
        ("chest-block", [FRONT, BACK], 0.25, [1, 1]),
    ],
)
def test_patterns_by_hand(pattern, azimuth, along, expected):
    texture = textures.trunk_texture(style(pattern=pattern))
    assert look(texture, azimuth, along) == np.atleast_1d(expected).tolist()


def test_a_jacket_is_open_in_front_only():
    texture = textures.trunk_texture(style(cut="jacket"))
    assert look(texture, [FRONT, SIDE, BACK], 0.5) == [textures.INNER, 0, 0]


def test_a_backpack_shows_its_straps_and_a_shoulder_bag_one_across():
    backpack = textures.trunk_texture(style(bag="backpack"))
    assert look(backpack, [-0.75, 0.0, 0.75], 0.3) == [textures.STRAP, 0, textures.STRAP]
    across = textures.trunk_texture(style(bag="shoulder"))
    middle = [azimuth for azimuth in (FRONT, BACK) if look(across, azimuth, 0.5) != [0]]
    assert middle == [FRONT, BACK]
    assert look(across, [-0.6, 0.6], 0.1) == [textures.STRAP, 0]
    assert look(across, [-0.6, 0.6], 0.9) == [0, textures.STRAP]


def test_only_stripes_and_checks_reach_the_sleeves():
    striped = [
        name for name in PATTERNS if grid(textures.sleeve_texture(style(pattern=name))).any()
    ]
    assert striped == ["horizontal", "checks"]


@pytest.mark.parametrize("hair", HAIRS)
def test_faces_look_forward(hair):
    texture = textures.head_texture(style(hair=hair))
    assert look(texture, 0.42, 0.42) == [3], "an eye"
    behind = look(texture, BACK, 0.42)[0]
    assert behind == (0 if hair == "bald" else 1)
    assert look(texture, FRONT, 0.1) == [{"bald": 0, "cap": 2}.get(hair, 1)]
    assert look(texture, FRONT, 0.7) == [0], "skin"
