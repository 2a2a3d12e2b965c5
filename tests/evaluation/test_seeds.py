# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import itertools
import math

import numpy as np
import pytest

from kdps.evaluation.seeds import gap_share, nested_interval


def test_the_mean_is_over_seeds_and_queries():
    interval = nested_interval(np.array([[1.0, 2.0], [3.0, 6.0]]), resamples=50)
    assert interval.mean == 3.0
    assert interval.lower <= interval.mean <= interval.upper


def test_quantiles_are_those_of_all_resamples():
    """Against every way to draw two seeds and two queries, all as likely."""
    values = np.array([[0.0, 4.0], [10.0, 30.0]])
    # The seeds' means 2 and 20 are 9 from the mean of both; at 70 % Student's t with 1 degree of
    # freedom is 0.7265, the normal distribution 0.5244; there are 2 seeds per degree of freedom.
    factor = math.sqrt(2) * 0.7265 / 0.5244
    enlarged = values + (factor - 1) * np.array([[-9.0], [9.0]])
    pairs = list(itertools.product(range(2), repeat=2))
    means = sorted(enlarged[np.ix_(s, q)].mean() for s in pairs for q in pairs)
    # 0.3 of the sixteen ways end within the fifth, 0.7 within the twelfth.
    interval = nested_interval(values, resamples=20_000, level=0.4)
    assert interval.lower == pytest.approx(means[4], abs=1e-2)
    assert interval.upper == pytest.approx(means[11], abs=1e-2)


def test_seeds_that_differ_widen_the_interval():
    """The same for all queries: the choice of queries leaves nothing open, that of seeds does."""
    values = np.repeat([[0.0], [10.0]], 50, axis=1)
    interval = nested_interval(values)
    # t of 97.5 % with one degree of freedom is 12.706, a normal one 1.960.
    half = 5 * 12.706 / 1.960 * math.sqrt(2)
    assert [interval.lower, interval.upper] == pytest.approx([5 - half, 5 + half], rel=1e-3)
    assert nested_interval(values.T).lower == 0.0
    same = nested_interval(np.full((3, 5), 2.0))
    assert (same.lower, same.mean, same.upper) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_few_seeds_are_covered_as_promised(seeds):
    """Of many experiments about 95 of 100 have the truth in their interval."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        values = rng.normal(size=(seeds, 1)) + 2 * rng.normal(size=(1, 60))
        values = values + rng.normal(size=(seeds, 60))
        interval = nested_interval(values, resamples=500)
        covered += interval.lower <= 0 <= interval.upper
    assert covered >= 180


def test_drawing_is_repeatable_and_independent_of_blocks(monkeypatch):
    values = np.random.default_rng(0).normal(size=(3, 40))
    once = nested_interval(values, seed=4)
    assert nested_interval(values, seed=4) == once
    assert nested_interval(values, seed=5) != once
    monkeypatch.setattr("kdps.evaluation.seeds._BLOCK", 400)
    blocks = nested_interval(values, seed=4)
    assert [blocks.lower, blocks.upper] == pytest.approx([once.lower, once.upper], abs=1e-9)


def test_the_share_of_a_gap():
    low = np.array([[10.0, 20.0], [10.0, 20.0]])
    high = low + 20.0
    found = gap_share(low + 5.0, low, high, resamples=100)
    assert found.share.mean == found.share.lower == found.share.upper == 0.25
    assert found.gap.mean == 20.0
    assert gap_share(low, low, high, resamples=100).share.mean == 0.0
    assert gap_share(high + 10.0, low, high, resamples=100).share.mean == 1.5


def test_a_gap_that_chance_may_close_leaves_its_share_open():
    low, high = np.zeros((2, 2)), np.array([[1.0, -1.0], [2.0, -1.0]])
    found = gap_share(low + 0.5, low, high, resamples=500)
    # 0.5 of a mean gap of 0.25, which may be none.
    assert (found.share.mean, found.share.upper) == (2.0, math.inf)
    assert found.share.lower > 0
    worse = gap_share(low - 0.5, low, high, resamples=500).share
    assert (worse.mean, worse.lower) == (-2.0, -math.inf)
    none = gap_share(low, low, low, resamples=20)
    assert math.isnan(none.share.mean)
