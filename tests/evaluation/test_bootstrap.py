# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kdps.errors import KdpsError
from kdps.evaluation import bootstrap
from kdps.evaluation.bootstrap import (
    map_difference,
    map_interval,
    mean_interval,
    permutation_test,
)
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


def test_interval_of_plain_numbers_is_the_paired_one() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.random(30), rng.random(30)
    options = {"resamples": 300, "level": 0.8, "seed": 2}
    found = mean_interval(100 * (a - b), "made", **options)
    assert found == map_difference(make_result(a), make_result(b), **options)
    assert found.lower < found.mean < found.upper
    assert found.lower > mean_interval(100 * (a - b), "made", resamples=300, seed=2).lower


def enumerate_signs(values: np.ndarray) -> float:
    """The p-value by going through all signs, one after the other."""
    observed = abs(sum(values)) - 1e-9
    ways = list(itertools.product([1, -1], repeat=len(values)))
    return sum(abs(sum(np.multiply(way, values))) >= observed for way in ways) / len(ways)


def test_p_value_by_hand() -> None:
    # Of eight ways to give signs to 1, 2, 4 only +++ and --- reach 7.
    assert permutation_test(np.array([1.0, 2.0, 4.0])) == 2 / 8
    # 1 + 2 - 4 = -1: all eight reach it.
    assert permutation_test(np.array([1.0, 2.0, -4.0])) == 1
    # A zero has no sign, so that many of them do not keep the ways from being counted.
    assert permutation_test(np.array([*np.zeros(40), 1.0, 2.0, 4.0])) == 2 / 8
    assert permutation_test(np.zeros(5)) == 1


@given(st.lists(st.integers(-20, 20).map(lambda n: n / 10), max_size=9))
def test_p_value_is_that_of_all_signs(values: list[float]) -> None:
    differences = np.array(values)
    found = permutation_test(differences)
    assert found == pytest.approx(enumerate_signs(differences))
    assert permutation_test(-differences) == pytest.approx(found)


def test_drawn_p_value_is_near_the_counted_one() -> None:
    rng = np.random.default_rng(0)
    for shift in (0.1, 0.3, 0.6):
        values = rng.standard_normal(13) + shift  # not a multiple of eight
        exact = permutation_test(values)
        drawn = permutation_test(values, samples=8000)
        assert drawn != exact
        # Four standard deviations of a share of 8000.
        assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 8000))


def test_drawn_p_value_is_scipys() -> None:
    values = np.random.default_rng(4).standard_normal(40) + 0.25
    expected = stats.permutation_test(
        (values,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=5000,
        batch=500,
        rng=np.random.default_rng(0),
    ).pvalue
    assert 0.01 < expected < 0.5
    assert permutation_test(values, samples=20_000) == pytest.approx(expected, rel=0.25)


def test_drawn_p_value_is_never_zero_and_its_seed_decides() -> None:
    assert permutation_test(np.ones(200), samples=99) == 1 / 100
    values = np.random.default_rng(1).standard_normal(50)
    first = permutation_test(values, samples=999, seed=3)
    assert permutation_test(values, samples=999, seed=3) == first
    assert any(permutation_test(values, samples=999, seed=seed) != first for seed in (4, 5))


def test_p_value_is_uniform_where_chance_made_the_differences() -> None:
    rng = np.random.default_rng(7)
    p_values = [
        permutation_test(rng.standard_normal(30), samples=400, seed=seed) for seed in range(400)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    shifted = [permutation_test(rng.standard_normal(30) + 0.7, samples=400) for _ in range(50)]
    assert np.mean(np.array(shifted) < 0.05) > 0.8


def test_drawing_is_bounded_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_BLOCK", 2**14)
    values = np.random.default_rng(2).standard_normal(2000)
    tracemalloc.start()
    permutation_test(values, samples=5000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All at once it would be 250 numbers of 8 bytes for each of 5000.
    assert peak < 3e6


def test_errors() -> None:
    one, two = make_result(np.array([0.5])), make_result(np.array([0.5, 0.2]))
    with pytest.raises(KdpsError, match="different queries"):
        map_difference(one, two)
    with pytest.raises(KdpsError, match="at least two"):
        map_difference(one, one)
    with pytest.raises(KdpsError, match="at least two"):
        map_interval(one)
    with pytest.raises(KdpsError, match="^some: .* at least two"):
        mean_interval(np.zeros(1), "some")
