# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kdps.data.synth import SynthConfig
from kdps.data.synth.placement import place
from kdps.data.synth.render import SMALLEST_BOX, VISIBLE_BOX, VISIBLE_LABELLED, compose, render
from kdps.data.synth.scene import make_scene
from kdps.data.synth.schedule import make_schedule

# Crowded on purpose: half of the people stand partly behind others or leave the frame.
CONFIG = SynthConfig(
    train_images=12, train_ids=12, width=240, height=180, people=(8, 9), person_height=(0.3, 0.7)
)


@pytest.fixture(scope="module")
def shots():
    return make_schedule(CONFIG, "train")


@pytest.fixture(scope="module")
def drawn(shots):
    return [(shot, compose(CONFIG, shot, np.random.default_rng(shot.index))) for shot in shots]


def test_boxes_hold_exactly_the_seen_pixels_of_their_person(drawn):
    checked = 0
    for shot, composition in drawn:
        unmatched = list(composition.boxes)
        for i in range(len(shot.people)):
            rows, columns = np.nonzero(composition.owner == i)
            if len(rows) == 0:
                continue
            x, y = columns.min(), rows.min()
            tight = (x, y, columns.max() - x + 1, rows.max() - y + 1)
            found = [box for box in unmatched if box.xywh == tight]
            checked += len(found)
            for box in found:
                unmatched.remove(box)
                assert box.number in (-1, shot.people[i].number)
        assert not unmatched, "a box without a person"
    assert checked > 60


def test_boxes_lie_inside_the_frame_and_are_not_tiny(drawn):
    for _, composition in drawn:
        for box in composition.boxes:
            x, y, w, h = box.xywh
            assert x >= 0
            assert y >= 0
            assert x + w <= CONFIG.width
            assert y + h <= CONFIG.height
            assert w >= SMALLEST_BOX[0]
            assert h >= SMALLEST_BOX[1]


def test_hidden_people_lose_identity_and_then_their_box(drawn):
    boxes = [box for _, composition in drawn for box in composition.boxes]
    assert all(box.visible >= VISIBLE_LABELLED for box in boxes if box.number >= 0)
    assert all(VISIBLE_BOX <= box.visible <= 1 for box in boxes)
    assert min(box.visible for box in boxes) < VISIBLE_LABELLED < 1 == max(b.visible for b in boxes)
    assert len(boxes) < sum(len(shot.people) for shot, _ in drawn)


def test_passers_by_are_never_labelled(drawn):
    for shot, composition in drawn:
        labelled = {person.number for person in shot.people if person.labelled}
        numbers = [box.number for box in composition.boxes if box.number >= 0]
        assert set(numbers) <= labelled
        assert len(numbers) == len(set(numbers))


def test_boxes_are_unique_in_an_image(drawn):
    for _, composition in drawn:
        assert len({box.xywh for box in composition.boxes}) == len(composition.boxes)


def test_people_change_the_pixels_they_own(drawn):
    for shot, composition in drawn[:4]:
        scene = make_scene(CONFIG, shot.split, shot.camera, shot.scene)
        changed = np.abs(composition.picture.astype(int) - scene.backdrop).max(axis=-1) > 8
        assert changed[composition.owner >= 0].mean() > 0.9


def test_things_hide_the_people_behind_them(drawn, monkeypatch):
    behind = 0
    for shot, composition in drawn[:6]:
        scene = make_scene(CONFIG, shot.split, shot.camera, shot.scene)
        empty = replace(scene, props=())
        with monkeypatch.context() as patch:
            patch.setattr("kdps.data.synth.render.make_scene", lambda *_, place=empty: place)
            free = compose(CONFIG, shot, np.random.default_rng(shot.index)).owner
        assert (composition.owner[free == -1] == -1).all()
        # The same draws again give where everybody stands.
        rng = np.random.default_rng(shot.index)
        for i, person in enumerate(place(scene, shot.people, rng, CONFIG.width)):
            lost = (free == i) & (composition.owner != i)
            assert (composition.owner[lost] == -1).all()
            if person.y > max(prop.y for prop in scene.props):
                assert not lost.any(), "hidden by a thing that stands farther away"
            behind += lost.any()
    assert behind >= 3


def test_an_image_depends_on_its_index_alone(shots):
    first, again, other = (render(CONFIG, shots[i]) for i in (0, 0, 1))
    assert first == again
    assert first[0] != other[0]
