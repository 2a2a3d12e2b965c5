# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Query expansion: by hand, and against the formula written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdps.data.protocol import Gallery, Query, SearchProtocol
from kdps.errors import KdpsError
from kdps.evaluation.query_expansion import expand_queries
from kdps.evaluation.search import SearchResult, score_search
from kdps.structures.detections import Detections

E0, E1, E2 = np.eye(3, dtype=np.float32)
HALF = np.array([0.5, np.sqrt(0.75), 0], dtype=np.float32)  # similarity 0.5 to E0


def detections_of(emb: Sequence[np.ndarray], queries: Sequence[np.ndarray] = (E0,)) -> Detections:
    return Detections(
        names=("s0.jpg",),
        det_count=np.array([len(emb)]),
        det=np.tile(np.float32([0, 0, 10, 20, 1]), (len(emb), 1)),
        emb=np.array(emb, dtype=np.float32).reshape(len(emb), len(queries[0])),
        query_emb=np.array(queries, dtype=np.float32),
    )


def lists_of(top: Sequence[Sequence[int]]) -> SearchResult:
    rows = np.array(top, dtype=np.int64)
    return SearchResult(
        name="hand_made",
        ap=np.zeros(len(rows)),
        num_truths=np.ones(len(rows), dtype=np.int64),
        ranks=tuple(np.zeros(0, dtype=np.int64) for _ in rows),
        top=rows,
        # Of a weighted search, say: not what the mean is weighted with.
        similarity=np.full(rows.shape, 0.1, dtype=np.float32),
        on_person=np.zeros(rows.shape, dtype=bool),
        counted=np.zeros(rows.shape, dtype=bool),
    )


def expand(emb: Sequence[np.ndarray], top: Sequence[int], k: int, alpha: float) -> list[float]:
    detections = detections_of(emb)
    expanded = expand_queries(detections, lists_of([top]), k, alpha)
    assert detections.query_emb.tolist() == [E0.tolist()]
    assert expanded.query_emb.dtype == np.float32
    return pytest.approx(expanded.query_emb[0].tolist(), abs=1e-6)


def unit(x: float, y: float) -> list[float]:
    return (np.array([x, y, 0]) / np.hypot(x, y)).tolist()


def test_the_weight_is_a_power_of_the_similarity() -> None:
    y = np.sqrt(0.75)
    for alpha, weight in ((0, 1), (1, 0.5), (3, 0.125)):
        assert expand([HALF], [0], 1, alpha) == unit(1 + 0.5 * weight, y * weight)


def test_the_rows_of_the_list_are_mixed_in() -> None:
    assert expand([E2, E1, E0], [2, 1], 2, 0) == unit(2, 1)


def test_what_comes_later_in_the_list_takes_no_part() -> None:
    assert expand([E0, HALF], [0, 1], 1, 3) == E0.tolist()


def test_a_shorter_list_gives_what_it_has() -> None:
    for alpha in (0, 3):
        expected = unit(1 + 0.5 * 0.5**alpha, np.sqrt(0.75) * 0.5**alpha)
        assert expand([HALF, E2], [0, -1, -1], 3, alpha) == expected
        assert expand([HALF], [-1, -1], 2, alpha) == E0.tolist()
    assert expand([], [-1], 1, 0) == E0.tolist()


def test_the_opposite_weighs_nothing_unless_all_weigh_alike() -> None:
    opposite = np.array([-0.5, np.sqrt(0.75), 0], dtype=np.float32)
    assert expand([opposite], [0], 1, 3) == E0.tolist()
    assert expand([opposite], [0], 1, 0) == unit(0.5, np.sqrt(0.75))


def test_a_query_that_is_cancelled_out_stays() -> None:
    assert expand([-E0], [0], 1, 0) == E0.tolist()


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from([0.0, 1.0, 3.0]))
def test_equals_the_formula(seed: int, k: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    # More queries than are expanded at once.
    emb, queries = (rng.standard_normal((n, 8)) for n in (rng.integers(1, 9), 150))
    emb /= np.linalg.norm(emb, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    top = np.array([rng.permutation(np.r_[np.arange(len(emb)), [-1] * 5])[:5] for _ in queries])
    detections = detections_of(emb, queries)
    expanded = expand_queries(detections, lists_of(top), k, alpha)
    emb, queries = detections.emb.astype(float), detections.query_emb.astype(float)
    for query, rows, result in zip(queries, top, expanded.query_emb, strict=True):
        total = query.copy()
        for row in rows[:k]:
            if row >= 0:
                total += max(query @ emb[row], 0) ** alpha * emb[row]
        np.testing.assert_allclose(result, total / np.linalg.norm(total), atol=1e-6)


def test_a_second_search_finds_who_looks_like_the_first_hits() -> None:
    # The third detection is like the first, not like the query; the second is like neither.
    first, other, like_first = (
        np.array(row, dtype=np.float32)
        for row in ([0.8, 0.6, 0], [0.1, 0, np.sqrt(0.99)], [0, 1, 0])
    )
    detections = detections_of([first, other, like_first])
    detections.det[2, :4] += 100
    query = Query("s0.jpg", (0, 0, 10, 20), 1)
    none = np.zeros(0, dtype=np.int64)
    gallery = Gallery(None, none, np.array([0]), np.array([[100.0, 100, 110, 120]]))
    protocol = SearchProtocol("world", ("s0.jpg",), np.zeros(1, int), (query,), (gallery,))
    before = score_search(detections, protocol)
    assert before.top[0, :3].tolist() == [0, 1, 2]
    after = score_search(expand_queries(detections, before, k=1), protocol)
    assert after.top[0, :3].tolist() == [0, 2, 1]


def test_refuses_lists_that_are_too_short() -> None:
    with pytest.raises(KdpsError, match="hold 2 detections, fewer than the 3"):
        expand_queries(detections_of([E0]), lists_of([[0, -1]]), k=3)


def test_refuses_lists_of_other_detections() -> None:
    for top in ([[1]], [[0], [0]]):
        with pytest.raises(KdpsError, match="not of these detections"):
            expand_queries(detections_of([E0]), lists_of(top), k=1)


@pytest.mark.parametrize(("k", "alpha"), [(0, 3), (1, -1)])
def test_refuses_parameters_out_of_range(k: int, alpha: float) -> None:
    with pytest.raises(KdpsError, match="k >= 1 and alpha >= 0"):
        expand_queries(detections_of([E0]), lists_of([[0]]), k, alpha)


def test_everything_else_stays() -> None:
    detections = replace(detections_of([HALF]), meta={"method": "x"})
    expanded = expand_queries(detections, lists_of([[0]]), k=1)
    assert expanded.meta == detections.meta
    assert expanded.emb is detections.emb


def test_the_query_changes_among_its_persons_as_well() -> None:
    detections = replace(
        detections_of([E1], queries=(E0, E2, E0)),
        qdet_count=np.array([2, 0, 1]),
        qdet=np.ones((3, 5), dtype=np.float32),
        qdet_emb=np.stack([E0, E2, E0]),
    )
    expanded = expand_queries(detections, lists_of([[0], [0], [-1]]), 1, 0)
    assert expanded.qdet_emb[0].tolist() == expanded.query_emb[0].tolist() != E0.tolist()
    assert expanded.qdet_emb[1:].tolist() == [E2.tolist(), E0.tolist()]
