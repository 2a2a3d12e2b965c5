# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
import pytest

from kdps.utils.visualizer import PersonSearchVisualizer, Verdict, person_color

GREY = np.full((120, 160, 3), 128, dtype=np.uint8)
BOX = (40.0, 30.0, 90.0, 100.0)


def test_a_verdict_draws_its_colour_on_the_outline_only() -> None:
    for verdict in Verdict:
        picture = PersonSearchVisualizer(GREY).draw_verdict(BOX, verdict).get_image()
        assert picture.shape == GREY.shape
        for x, y in ((65, 30), (65, 100), (40, 60), (90, 60)):
            assert picture[y, x].tolist() == pytest.approx(verdict.rgb, abs=3)
        assert picture[65, 65].tolist() == [128, 128, 128]
        assert picture[10, 10].tolist() == [128, 128, 128]


def test_persons_are_labelled_in_their_own_colours() -> None:
    boxes = np.array([BOX, (100.0, 30.0, 150.0, 100.0)])
    plain = PersonSearchVisualizer(GREY).draw_persons(boxes, person_ids=[4, -1]).get_image()
    scored = PersonSearchVisualizer(GREY).draw_persons(boxes, person_ids=[4, -1], scores=[1, 0.5])
    assert (plain != scored.get_image()).any()
    # Half transparent outlines: between the grey and the colour of the identity.
    expected = 0.5 * 128 + 0.5 * 255 * np.array(person_color(4))
    assert plain[80, 40].tolist() == pytest.approx(expected.tolist(), abs=4)


def test_no_persons_leave_the_image_alone() -> None:
    drawn = PersonSearchVisualizer(GREY).draw_persons(np.zeros((0, 4)), person_ids=[]).get_image()
    assert (drawn == GREY).all()


def test_identities_next_to_each_other_look_different() -> None:
    colors = np.array([person_color(pid) for pid in range(12)])
    distance = np.abs(colors[:, None] - colors[None]).sum(axis=2)
    assert distance[~np.eye(12, dtype=bool)].min() > 0.2
    assert person_color(-1) == person_color(-2)


def test_verdicts_differ_in_mark_or_meaning_and_not_by_colour_alone() -> None:
    assert Verdict.RIGHT.mark != Verdict.WRONG.mark
    assert len({verdict.meaning for verdict in Verdict}) == len(Verdict)
    assert Verdict.RIGHT.css == "#009e73"
