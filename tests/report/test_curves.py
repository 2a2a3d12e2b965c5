# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kdps.evaluation.search import SearchResult
from kdps.report.curves import RECALL_LEVELS, mean_precision


def make_result(queries: list[tuple[list[int], int]]) -> SearchResult:
    """A result of queries as (ranks of true positives, truths)."""
    none = np.zeros((len(queries), 0))
    return SearchResult(
        name="made",
        ap=np.zeros(len(queries)),
        num_truths=np.array([truths for _, truths in queries]),
        ranks=tuple(np.array(ranks, dtype=np.int64) for ranks, _ in queries),
        top=none.astype(np.int64),
        similarity=none.astype(np.float32),
        on_person=none.astype(bool),
        counted=none.astype(bool),
    )


def test_by_hand() -> None:
    # Precisions 1/2, 2/3 at recalls 1/3, 2/3; the best at or beyond 1/3 is 2/3.
    curve = mean_precision(make_result([([2, 3], 3)]))
    assert len(curve) == 101
    np.testing.assert_allclose(curve[[0, 1, 33, 34, 66]], 2 / 3)
    np.testing.assert_array_equal(curve[[67, 100]], 0)


def test_mean_is_over_the_queries_that_can_be_scored() -> None:
    curve = mean_precision(make_result([([1], 1), ([], 2), ([], 0)]))
    np.testing.assert_array_equal(curve, 0.5)


def test_a_level_is_reached_by_equality() -> None:
    # 29 of 100 truths are a recall of 29 %, though 0.29 * 100 is more than 29 in floating point.
    curve = mean_precision(make_result([(list(range(1, 30)), 100)]))
    assert (curve[29], curve[30]) == (1, 0)


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(1, 30), unique=True, max_size=6).map(sorted), st.integers(0, 3)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_equals_a_slow_reference(queries: list[tuple[list[int], int]]) -> None:
    queries = [(ranks, len(ranks) + missed) for ranks, missed in queries] + [([], 1)]
    scored = [(ranks, truths) for ranks, truths in queries if truths]
    expected = []
    for level in RECALL_LEVELS.tolist():
        best = [
            max(
                (
                    Fraction(i, rank)
                    for i, rank in enumerate(ranks, start=1)
                    if Fraction(i, truths) >= Fraction(level, 100)
                ),
                default=Fraction(0),
            )
            for ranks, truths in scored
        ]
        expected.append(float(sum(best) / len(best)))
    np.testing.assert_allclose(mean_precision(make_result(queries)), expected, atol=1e-12)
