# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import math
from dataclasses import fields, replace
from itertools import combinations

import numpy as np
import pytest

from kdps.data.synth.figure import draw_person
from kdps.data.synth.identity import (
    BAGS,
    BUILDS,
    CUTS,
    HAIRS,
    LOWERS,
    PATTERNS,
    Colours,
    Identity,
    Style,
)
from kdps.data.synth.pose import Pose

# Pure channels, so that each part of a figure can be found by its colour.
COLOURS = Colours(
    skin=(120, 160, 200),
    hair=(90, 90, 20),
    upper=(0, 0, 220),
    accent=(0, 220, 220),
    lower=(0, 200, 0),
    shoes=(60, 60, 60),
    bag=(220, 0, 0),
)
STYLE = Style("long-sleeve", "plain", "trousers", "none", "short", "average")
PERSON = Identity(0, 0, True, COLOURS, STYLE, 1.72, 1.0, 1.0)
STANDING = Pose(yaw=0.0, phase=0.0, stride=0.0, bend=0.2, tilt=0.1)
PIXELS = 160


def draw(yaw=0.0, pose=STANDING, **style):
    person = replace(PERSON, style=replace(STYLE, **style))
    return draw_person(person, replace(pose, yaw=yaw), PIXELS, light=0.0)


def count(sprite, channel):
    """Pixels that are painted in one pure colour channel."""
    others = [c for c in range(3) if c != channel]
    colour = sprite.colour
    return int(((colour[..., channel] > 90) & (colour[..., others] < 40).all(axis=-1)).sum())


def extent(sprite):
    rows, columns = np.nonzero(sprite.alpha > 0.5)
    return rows.min(), rows.max(), columns.min(), columns.max()


@pytest.mark.parametrize("yaw", [0.0, 1.0, math.pi / 2, math.pi])
def test_a_figure_is_as_tall_as_asked_for_and_stands_on_its_origin(yaw):
    sprite = draw(yaw)
    top, bottom, left, right = extent(sprite)
    assert bottom - top + 1 == pytest.approx(PIXELS, rel=0.05)
    assert bottom == pytest.approx(sprite.origin[1], abs=0.06 * PIXELS)
    assert left < sprite.origin[0] < right
    assert 0.15 < (right - left) / (bottom - top) < 0.55


@pytest.mark.parametrize("yaw", np.linspace(-math.pi, math.pi, 9))
def test_no_part_leaves_the_sprite(yaw):
    stride = Pose(yaw=0.0, phase=1.2, stride=1.0, bend=0.6, tilt=0.3)
    person = replace(PERSON, girth=1.4, shoulders=1.25, style=replace(STYLE, bag="hand"))
    alpha = draw_person(person, replace(stride, yaw=yaw), PIXELS, light=1.0).alpha
    assert not alpha[[0, -1]].any()
    assert not alpha[:, [0, -1]].any()


def test_head_above_trunk_above_legs():
    sprite = draw()
    column = sprite.colour[:, sprite.origin[0]]
    trunk = np.flatnonzero((column[:, 2] > 120) & (column[:, 1] < 60))
    skin = np.flatnonzero((column[:, 2] > 120) & (column[:, 1] > 100))
    legs = np.flatnonzero((sprite.colour[..., 1] > 120).any(axis=1) & (sprite.alpha > 0.5).any(1))
    assert skin.max() < trunk.min() + 2
    assert legs.max() > trunk.max()


def test_a_backpack_is_seen_best_from_behind():
    front, side, back = (count(draw(yaw, bag="backpack"), 0) for yaw in (0, math.pi / 2, math.pi))
    assert 0 < front < side < back


@pytest.mark.parametrize("bag", ["shoulder", "hand"])
def test_bags_are_seen_from_front_and_back(bag):
    assert count(draw(0.0), 0) == 0
    assert min(count(draw(yaw, bag=bag), 0) for yaw in (0.0, math.pi)) > 30


def test_garments_cover_what_they_should():
    lower = {kind: count(draw(lower=kind), 1) for kind in LOWERS}
    assert lower["trousers"] > lower["skirt"] > 0
    assert lower["trousers"] > lower["shorts"] > 0
    upper = {cut: count(draw(cut=cut), 2) for cut in CUTS}
    assert upper["coat"] > upper["long-sleeve"] > upper["t-shirt"]
    assert upper["long-sleeve"] > upper["vest"]


def test_a_knee_never_comes_through_the_coat():
    stride = Pose(yaw=0.0, phase=math.pi / 2, stride=1.0, bend=0.2, tilt=0.2)
    sprite = draw(pose=stride, cut="coat")
    middle = sprite.colour[:, sprite.origin[0]]
    red = np.flatnonzero((middle[:, 2] > 90) & (middle[:, 1] < 40))
    assert len(red) == red.max() - red.min() + 1, "the coat has a hole"


def test_looking_back_shows_hair_where_the_face_was():
    face, neck = (draw(yaw).colour[: PIXELS // 8, :, 2].sum() for yaw in (0.0, math.pi))
    assert neck < 0.75 * face


VARIANTS = {
    "cut": CUTS,
    "pattern": PATTERNS,
    "lower": LOWERS,
    "bag": BAGS,
    "hair": HAIRS,
    "build": tuple(BUILDS),
}


def test_the_table_of_variants_is_complete():
    assert set(VARIANTS) == {field.name for field in fields(Style)}


@pytest.mark.parametrize("attribute", [name for name in VARIANTS if name != "build"])
@pytest.mark.parametrize("yaw", [0.0, math.pi / 2, math.pi])
def test_every_difference_between_twins_can_be_seen(attribute, yaw):
    pictures = [draw(yaw, **{attribute: value}).colour for value in VARIANTS[attribute]]
    if attribute == "pattern" and yaw == math.pi / 2:
        # prints on chest and back are hidden by the arm
        pictures.pop(PATTERNS.index("chest-block"))
    for a, b in combinations(pictures, 2):
        assert (np.abs(a - b).max(axis=-1) > 40).sum() > 12


def test_builds_differ_in_outline():
    areas = []
    for height, girth, shoulders in BUILDS.values():
        person = replace(PERSON, height=height, girth=girth, shoulders=shoulders)
        sprite = draw_person(person, STANDING, PIXELS * height / 1.7, light=0.0)
        areas.append((sprite.alpha > 0.5).sum())
    assert min(b / a for a, b in zip(sorted(areas), sorted(areas)[1:], strict=False)) > 1.01
