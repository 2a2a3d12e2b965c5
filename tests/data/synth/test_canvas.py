# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import math

import numpy as np
import pytest

from kdps.data.synth.canvas import Canvas, Sprite, wrap

RED, BLUE = (0, 0, 255), (255, 0, 0)


def test_an_upright_tube_fills_its_rectangle():
    canvas = Canvas(20, 30, light=0.0)
    canvas.tube((10, 5), (10, 25), (4, 4), [RED], caps=False)
    expected = np.zeros((30, 20))
    expected[5:25, 6:14] = 1
    np.testing.assert_array_equal(canvas.sprite((0, 0)).alpha, expected)


def test_round_ends_reach_beyond_the_axis():
    canvas = Canvas(30, 40, light=0.0)
    canvas.tube((15, 12), (15, 28), (6, 6), [RED])
    rows, _ = np.nonzero(canvas.sprite((0, 0)).alpha > 0.5)
    assert rows.min() == pytest.approx(6, abs=1)
    assert rows.max() == pytest.approx(34, abs=1)


def test_a_tube_tapers_and_narrows_at_the_waist():
    canvas = Canvas(60, 60, light=0.0)
    canvas.tube((30, 0), (30, 60), (20, 10), [RED], caps=False, waist=0.5)
    widths = (canvas.sprite((0, 0)).alpha > 0.5).sum(axis=1)
    assert widths[0] == pytest.approx(40, abs=2)
    assert widths[30] == pytest.approx(2 * 15 * 0.5, abs=2)
    assert widths[59] == pytest.approx(20, abs=2)


def test_colour_is_premultiplied_and_darkens_towards_the_sides():
    canvas = Canvas(40, 20, light=0.0)
    canvas.tube((20, 0), (20, 19), (15, 15), [(0, 0, 200)], caps=False)
    sprite = canvas.sprite((0, 0))
    assert not sprite.colour[:, :3].any()
    np.testing.assert_array_equal(sprite.colour, sprite.colour[:, ::-1])
    middle, side = sprite.colour[10, 20], sprite.colour[10, 7]
    assert middle[2] == pytest.approx(200, abs=2)
    assert 140 < side[2] < 180
    assert middle[0] == middle[1] == 0


def test_light_makes_its_side_brighter():
    canvas = Canvas(40, 20, light=1.0)
    canvas.tube((20, 0), (20, 19), (15, 15), [(0, 0, 200)], caps=False)
    row = canvas.sprite((0, 0)).colour[10, :, 2]
    assert row[30] > row[10] > 0


@pytest.mark.parametrize(("yaw", "expected"), [(0.0, RED), (math.pi, BLUE)])
def test_a_texture_turns_with_the_body(yaw, expected):
    canvas = Canvas(20, 20, light=0.0)
    canvas.tube(
        (10, 0),
        (10, 19),
        (8, 8),
        [RED, BLUE],
        texture=lambda azimuth, along: (np.abs(azimuth) > 1.5).astype(np.intp),
        yaw=yaw,
        caps=False,
    )
    np.testing.assert_allclose(canvas.sprite((0, 0)).colour[10, 10], expected, atol=4)


def test_later_paint_covers_earlier_paint():
    canvas = Canvas(20, 20, light=0.0)
    canvas.tube((10, 0), (10, 19), (8, 8), [RED], caps=False)
    canvas.polygon([(0, 8), (19, 8), (19, 12), (0, 12)], BLUE)
    sprite = canvas.sprite((0, 0))
    np.testing.assert_allclose(sprite.colour[10, 10], BLUE)
    assert sprite.colour[2, 10, 2] > 200
    assert sprite.alpha[10, 1] == 1
    assert sprite.alpha[2, 1] == 0


def test_paint_outside_the_canvas_is_ignored():
    canvas = Canvas(10, 10, light=0.0)
    canvas.tube((-40, -40), (-40, -30), (3, 3), [RED])
    assert not canvas.sprite((0, 0)).alpha.any()


def test_wrap():
    angles = np.array([0.0, math.pi + 0.5, -math.pi - 0.5, 5 * math.pi])
    np.testing.assert_allclose(
        wrap(angles), [0.0, -math.pi + 0.5, math.pi - 0.5, -math.pi], atol=1e-12
    )


def upright_sprite():
    """A bar of 4 by 20 pixels in a picture of 30 by 40, standing on (15, 35)."""
    alpha = np.zeros((40, 30), np.float32)
    alpha[15:35, 13:17] = 1
    return Sprite(np.repeat(alpha[..., None], 3, axis=2) * 200, alpha, (15, 35))


def test_trimming_takes_the_margins_and_moves_the_origin_with_them():
    sprite = upright_sprite().trimmed()
    assert sprite.alpha.shape == (20, 4)
    assert sprite.colour.shape == (20, 4, 3)
    assert (sprite.alpha == 1).all()
    assert sprite.origin == (2, 20)


@pytest.mark.parametrize(("light", "side"), [(-1.0, 1), (1.0, -1)])
def test_a_shadow_is_black_flat_and_falls_away_from_the_light(light, side):
    sprite = upright_sprite()
    shadow = sprite.shadow(light)
    assert not shadow.colour.any()
    # The blur over 3 x 3 pixels never leaves the bar's 4 columns and 6 rows whole.
    assert 0.2 < shadow.alpha.max() <= 0.4
    # 20 rows of the bar at 0.3 of their height, blurred by a pixel on either side.
    assert shadow.alpha.shape[0] == pytest.approx(6, abs=2)
    rows, columns = np.nonzero(shadow.alpha > 0.2)
    assert rows.max() == pytest.approx(shadow.origin[1], abs=2)
    tip = columns[rows == rows.min()].mean() - shadow.origin[0]
    assert tip * side == pytest.approx(0.6 * 20, abs=3)
