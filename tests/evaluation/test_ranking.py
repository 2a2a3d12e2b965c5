# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdps.evaluation import ranking as ranking_module
from kdps.evaluation.metrics import average_precision
from kdps.evaluation.ranking import rank_candidates

# Few distinct values, so that most examples have equal similarities; -inf takes no part.
VALUES = [-np.inf, -0.5, 0.0, 0.25, 0.5, 0.75]
candidates = st.lists(st.tuples(st.sampled_from(VALUES), st.booleans()), min_size=0, max_size=60)


def arrays(rows: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    similarity = np.array([value for value, _ in rows], dtype=np.float32)
    positives = [i for i, (value, label) in enumerate(rows) if label and value > -np.inf]
    return similarity, np.array(positives, dtype=np.int64)


def test_by_hand() -> None:
    # Order: 1, then 3 and 0 (equal, in their order 0, 3), then 2.
    similarity = np.array([0.5, 0.9, -0.1, 0.5], dtype=np.float32)
    ranking = rank_candidates(similarity, np.array([3, 2]), 3)
    assert ranking.ranks.tolist() == [3, 4]
    # At 0.5 three are retrieved, one of them right; at -0.1 two of four.
    assert ranking.precision.tolist() == [1 / 3, 2 / 4]
    assert ranking.best.tolist() == [1, 0, 3]


@given(candidates, st.integers(0, 12), st.sampled_from([0, 4096]))
def test_agrees_with_a_stable_sort(rows: list[tuple[float, bool]], top: int, short: int) -> None:
    similarity, positives = arrays(rows)
    order = [i for i in range(len(rows)) if similarity[i] > -np.inf]
    order.sort(key=lambda i: -similarity[i])
    with mock.patch.object(ranking_module, "_SHORT", short):
        ranking = rank_candidates(similarity, positives, top)
    assert ranking.best.tolist() == order[:top]
    assert ranking.ranks.tolist() == [order.index(i) + 1 for i in positives]
    if len(positives):
        expected = average_precision(similarity, similarity[positives], len(positives))
        assert ranking.precision.mean() == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 50]), st.integers(1, 4))
def test_a_long_list_is_cut_before_it_is_sorted(seed: int, distinct: int, top: int) -> None:
    rng = np.random.default_rng(seed)
    similarity = rng.integers(0, distinct, 16 * 4 * 5 + 3).astype(np.float32)
    similarity[rng.integers(0, len(similarity), 20)] = -np.inf
    order = np.argsort(-similarity, kind="stable")
    with mock.patch.object(ranking_module, "_SHORT", 0):
        assert rank_candidates(similarity, order[:0], top).best.tolist() == order[:top].tolist()
