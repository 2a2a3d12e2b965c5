# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from kdps.data.synth import SynthConfig
from kdps.data.synth.schedule import make_schedule
from kdps.errors import KdpsError

CONFIG = SynthConfig(train_images=100, train_ids=30, people=(3, 6), cameras=3, scenes=2)


@pytest.fixture(scope="module")
def shots():
    return make_schedule(CONFIG, "train")


def test_everybody_appears_about_equally_often(shots):
    seen = Counter(p.number for shot in shots for p in shot.people if p.labelled)
    assert len(seen) == 30
    assert max(seen.values()) - min(seen.values()) <= 2


def test_nobody_is_twice_in_an_image(shots):
    for shot in shots:
        assert len({person.number for person in shot.people}) == len(shot.people)


def test_images_hold_as_many_people_as_asked_for(shots):
    assert {len(shot.people) for shot in shots} == {3, 4, 5, 6}
    strangers = sum(not p.labelled for shot in shots for p in shot.people)
    assert strangers / sum(len(shot.people) for shot in shots) == pytest.approx(0.25, abs=0.06)


def test_all_cameras_and_places_are_used(shots):
    assert {(shot.camera, shot.scene) for shot in shots} == set(product(range(3), range(2)))
    assert [shot.index for shot in shots] == list(range(100))


def test_without_strangers_everybody_is_labelled():
    config = SynthConfig(train_images=20, train_ids=5, people=(2, 2), strangers=0.0)
    people = [p for shot in make_schedule(config, "train") for p in shot.people]
    assert len(people) == 40
    assert all(p.labelled for p in people)


def test_fewer_identities_than_places_in_an_image():
    config = SynthConfig(train_images=4, train_ids=1, people=(4, 4), strangers=0.0)
    assert [len(shot.people) for shot in make_schedule(config, "train")] == [1, 1, 1, 1]


def test_too_few_images_for_the_identities():
    with pytest.raises(KdpsError, match=r"test_images=2 .* test_ids=100"):
        make_schedule(SynthConfig(test_images=2), "test")
