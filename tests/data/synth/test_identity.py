# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from collections import defaultdict
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdps.data.synth import SynthConfig
from kdps.data.synth.identity import MIN_DIFFERENCES, draw_styles, make_population


@pytest.fixture(scope="module")
def people():
    return make_population(SynthConfig(train_ids=40, family=3), "train")


def test_labelled_people_come_first_and_are_as_many_as_asked_for(people):
    assert [p.labelled for p in people] == [True] * 40 + [False] * (len(people) - 40)
    assert [p.number for p in people] == list(range(len(people)))


def test_a_family_shares_all_colours_and_no_two_of_it_share_a_style(people):
    families = defaultdict(list)
    for person in people:
        families[person.family].append(person)
    twins = [family for family in families.values() if len(family) > 1]
    assert len(twins) == 14
    for family in twins:
        assert len({person.colours for person in family}) == 1
        for a, b in combinations(family, 2):
            assert a.style.differences(b.style) >= MIN_DIFFERENCES


def test_every_labelled_person_has_a_twin_among_the_passers_by(people):
    strangers = {p.family for p in people if not p.labelled}
    assert {p.family for p in people if p.labelled} <= strangers
    # and there are passers-by who resemble nobody on purpose
    assert strangers - {p.family for p in people if p.labelled}


def test_families_differ_in_colour(people):
    assert len({p.colours for p in people}) == len({p.family for p in people})


def test_splits_share_nobody():
    config = SynthConfig(train_ids=30, test_ids=30)
    train, test = (make_population(config, split) for split in ("train", "test"))
    assert {p.colours for p in train}.isdisjoint(p.colours for p in test)


def test_the_seed_decides():
    a, b, other = (make_population(SynthConfig(seed=s, train_ids=9), "train") for s in (1, 1, 2))
    assert a == b
    assert a != other


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 12))
def test_styles_of_twins_are_far_apart(seed, count):
    styles = draw_styles(np.random.default_rng(seed), count)
    assert len(styles) == count
    assert all(a.differences(b) >= MIN_DIFFERENCES for a, b in combinations(styles, 2))


def test_a_crowd_of_twins_is_still_made_of_different_people():
    styles = draw_styles(np.random.default_rng(0), 100)
    assert len(set(styles)) == 100
