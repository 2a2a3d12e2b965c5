# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import itertools
import math

import numpy as np
import pytest

from kdps.evaluation.seeds import gap_share, nested_interval


def test_the_mean_is_over_seeds_and_queries():
    interval = nested_interval(np.array([[1.0, 2.0], [3.0, 6.0]]), resamples=50)
    assert interval.mean == 3.0
    assert 1.0 <= interval.lower <= interval.mean <= interval.upper <= 6.0


def test_quantiles_are_those_of_all_resamples():
    """Against every way to draw two seeds and two queries, all as likely."""
    values = np.array([[0.0, 4.0], [10.0, 30.0]])
    pairs = list(itertools.product(range(2), repeat=2))
    means = [values[np.ix_(s, q)].mean() for s in pairs for q in pairs]
    # Drawn often, the share of resamples below a bound is that of all ways.
    interval = nested_interval(values, resamples=20_000, level=0.5)
    assert interval.lower == pytest.approx(np.quantile(means, 0.25), abs=2.5)
    assert interval.upper == pytest.approx(np.quantile(means, 0.75), abs=2.5)


def test_seeds_that_differ_widen_the_interval():
    """The same for all queries: the choice of queries leaves nothing open, that of seeds does."""
    values = np.repeat([[0.0], [10.0]], 50, axis=1)
    interval = nested_interval(values)
    assert (interval.lower, interval.upper) == (0.0, 10.0)
    assert nested_interval(values.T).lower == 0.0
    same = nested_interval(np.full((3, 5), 2.0))
    assert (same.lower, same.mean, same.upper) == (2.0, 2.0, 2.0)


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


def test_a_gap_that_chance_may_close_has_no_share():
    low, high = np.zeros((2, 2)), np.array([[1.0, -1.0], [2.0, -1.0]])
    found = gap_share(low + 0.5, low, high, resamples=500)
    assert math.isnan(found.share.lower)
    assert math.isnan(found.share.upper)
    none = gap_share(low, low, low, resamples=20)
    assert math.isnan(none.share.mean)
