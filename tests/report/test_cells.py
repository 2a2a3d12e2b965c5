# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdps.report.cells import crop_around, person_picture
from kdps.utils.visualizer import Verdict

SIZE = (90, 120)


def scene(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    image = np.full((height, width, 3), 100, dtype=np.uint8)
    x0, y0, x1, y1 = box
    image[y0:y1, x0:x1] = (250, 10, 10)
    return image


@pytest.mark.parametrize(
    "box",
    [
        (200, 100, 240, 200),  # in the middle
        (0, 0, 40, 100),  # in a corner
        (360, 200, 400, 300),  # in the opposite one
        (100, 100, 300, 140),  # wider than high
        (200, 100, 204, 110),  # tiny
    ],
)
def test_the_box_lands_on_the_person(box: tuple[int, int, int, int]) -> None:
    cut, inner = crop_around(scene(300, 400, box), box, SIZE)
    assert cut.shape == (120, 90, 3)
    red = np.argwhere(cut[..., 0].astype(int) - cut[..., 1] > 120)
    (y0, x0), (y1, x1) = red.min(axis=0), red.max(axis=0) + 1
    # A tiny person is enlarged much, which spreads its border over some pixels.
    blur = 2 if box[2] - box[0] > 10 else 8
    assert inner == pytest.approx((x0, y0, x1, y1), abs=blur)


def test_no_padding_where_the_image_suffices() -> None:
    for box in ((0, 0, 40, 100), (360, 200, 400, 300)):
        cut, _ = crop_around(np.full((300, 400, 3), 100, dtype=np.uint8), box, SIZE)
        assert (cut == 100).all()


def test_an_image_smaller_than_the_window_is_padded() -> None:
    cut, inner = crop_around(np.full((50, 20, 3), 10, dtype=np.uint8), (0, 0, 20, 50), SIZE)
    assert cut[0, 0].tolist() == [236, 236, 236]
    assert cut[60, 45].tolist() == [10, 10, 10]
    assert inner[0] > 0
    assert inner[2] < 90


@given(
    height=st.integers(20, 300),
    width=st.integers(20, 300),
    corner=st.tuples(st.floats(-20, 290), st.floats(-20, 290)),
    box_size=st.tuples(st.floats(1, 400), st.floats(1, 400)),
)
@settings(max_examples=150, deadline=None)
def test_any_box_gives_a_cut_with_the_box_inside(
    height: int, width: int, corner: tuple[float, float], box_size: tuple[float, float]
) -> None:
    x0, y0 = min(corner[0], width - 1), min(corner[1], height - 1)
    box = (x0, y0, x0 + box_size[0], y0 + box_size[1])
    image = np.zeros((height, width, 3), dtype=np.uint8)
    cut, inner = crop_around(image, box, SIZE)
    assert cut.shape == (120, 90, 3)
    assert inner[2] > inner[0]
    assert inner[3] > inner[1]
    # Widths and heights are scaled alike, but for the rounding of the window to whole pixels.
    assert (inner[2] - inner[0]) * box_size[1] == pytest.approx(
        (inner[3] - inner[1]) * box_size[0], rel=0.25
    )


def test_person_picture_draws_the_verdict() -> None:
    box = (200, 100, 240, 200)
    image = scene(300, 400, box)
    _, inner = crop_around(image, box, SIZE)
    picture = person_picture(image, box, Verdict.WRONG, SIZE)
    x, y = round(inner[0]), round((inner[1] + inner[3]) / 2)
    assert picture[y, x].tolist() == pytest.approx(Verdict.WRONG.rgb, abs=40)
