# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
import pytest

from kdps.errors import KdpsError
from kdps.evaluation.bootstrap import map_difference, map_interval
from kdps.evaluation.search import SearchResult


def make_result(ap: np.ndarray) -> SearchResult:
    empty = np.zeros((len(ap), 0))
    return SearchResult(
        name="made",
        ap=ap,
        num_truths=np.where(np.isnan(ap), 0, 1),
        ranks=(np.zeros(0, dtype=np.int64),) * len(ap),
        top=empty.astype(np.int64),
        similarity=empty.astype(np.float32),
        on_person=empty.astype(bool),
        counted=empty.astype(bool),
    )


def test_interval_is_that_of_a_plain_resampling_loop() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(60), rng.random(60) * 0.8
    found = map_difference(make_result(a), make_result(b), resamples=4000)
    means = [100 * (a - b)[rng.integers(60, size=60)].mean() for _ in range(4000)]
    low, high = np.percentile(means, [2.5, 97.5])
    assert found.mean == pytest.approx(100 * (a.mean() - b.mean()))
    # Two independent drawings: their ends differ by the error of a percentile of 4000.
    spread = 0.06 * (high - low)
    assert found.lower == pytest.approx(low, abs=spread)
    assert found.upper == pytest.approx(high, abs=spread)


def test_pairing_removes_what_both_find_hard() -> None:
    hard = np.random.default_rng(0).random(50)
    found = map_difference(make_result(hard * 0.5 + 0.1), make_result(hard * 0.5))
    assert (found.mean, found.lower, found.upper) == pytest.approx((10, 10, 10))


def test_seed_decides() -> None:
    rng = np.random.default_rng(1)
    a, b = make_result(rng.random(20)), make_result(rng.random(20))
    first = map_difference(a, b, resamples=200, seed=4)
    assert map_difference(a, b, resamples=200, seed=4) == first
    assert map_difference(a, b, resamples=200, seed=5) != first


def test_queries_without_truth_are_left_out() -> None:
    a, b = np.array([0.5, np.nan, 0.7, 0.9]), np.array([0.4, np.nan, 0.7, 0.5])
    with_gap = map_difference(make_result(a), make_result(b), resamples=300)
    without = map_difference(make_result(a[[0, 2, 3]]), make_result(b[[0, 2, 3]]), resamples=300)
    assert with_gap == without


def test_interval_of_one_result() -> None:
    ap = np.random.default_rng(2).random(40)
    zero = make_result(np.zeros(40))
    assert map_interval(make_result(ap)) == map_difference(make_result(ap), zero)


def test_errors() -> None:
    one, two = make_result(np.array([0.5])), make_result(np.array([0.5, 0.2]))
    with pytest.raises(KdpsError, match="different queries"):
        map_difference(one, two)
    with pytest.raises(KdpsError, match="at least two"):
        map_difference(one, one)
    with pytest.raises(KdpsError, match="at least two"):
        map_interval(one)
