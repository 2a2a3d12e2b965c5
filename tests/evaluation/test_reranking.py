# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Re-ranking: by hand, and against the paper's definitions written out."""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdps.data.protocol import Gallery, Query, SearchProtocol
from kdps.errors import KdpsError
from kdps.evaluation import reranking
from kdps.evaluation.reranking import KReciprocalReranking
from kdps.evaluation.search import score_search
from kdps.structures.detections import Detections

QUERY = np.array([1, 0, 0, 0], dtype=np.float32)
LIKE = np.array([0.5, 0.5, 0.5, 0.5], dtype=np.float32)
# As similar to the query as the other, but not at all to that one.
ALSO = np.array([0.5, 0.5, -0.5, -0.5], dtype=np.float32)
H = float(np.exp(-0.5))  # of a distance of one half


def detections_of(
    emb: Sequence[np.ndarray] | np.ndarray, queries: Sequence[np.ndarray] | np.ndarray = (QUERY,)
) -> Detections:
    rows = np.array(emb, dtype=np.float32).reshape(len(emb), len(queries[0]))
    return Detections(
        names=tuple(f"s{i}.jpg" for i in range(len(rows))),
        det_count=np.ones(len(rows), dtype=np.int64),
        det=np.tile(np.float32([0, 0, 10, 20, 1]), (len(rows), 1)),
        emb=rows,
        query_emb=np.array(queries, dtype=np.float32),
    )


def circle(*degrees: float) -> np.ndarray:
    """Rows whose distances grow with the angle between them."""
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def similarity_of(detections: Detections, query: int, rows: np.ndarray) -> np.ndarray:
    emb, query_emb = (a.astype(np.float64) for a in (detections.emb[rows], detections.query_emb))
    return (emb @ query_emb[query]).astype(np.float32)


def reference(
    detections: Detections, query: int, rows: np.ndarray, k1: int, k2: int, lambda_: float
) -> np.ndarray:
    """Every step for every one of the universe, as sets and dense rows. Item 0 is the query."""
    items = np.concatenate([detections.query_emb[[query]], detections.emb[rows]]).astype(float)
    similarity = (items @ items.T).astype(np.float32)
    everyone = range(len(items))
    order = [sorted(everyone, key=lambda y, x=x: (y != x, -similarity[x, y], y)) for x in everyone]

    def near(x: int, k: int) -> set[int]:
        return set(order[x][: k + 1])

    def reciprocal(x: int, k: int) -> set[int]:
        return {y for y in near(x, k) if x in near(y, k)}

    half = [reciprocal(x, k1 // 2) for x in everyone]
    encoded = np.zeros(similarity.shape)
    for x in everyone:
        own = reciprocal(x, k1)
        expanded = set(own)
        for y in own:
            if len(own & half[y]) >= 2 / 3 * len(half[y]):
                expanded |= half[y]
        for y in expanded:
            encoded[x, y] = np.exp(-(1 - float(similarity[x, y])))
    encoded = np.array([encoded[order[x][:k2]].mean(axis=0) for x in everyone])
    smaller = np.minimum(encoded[0], encoded).sum(axis=1)
    larger = np.maximum(encoded[0], encoded).sum(axis=1)
    distance = 1 - similarity[0].astype(float)
    final = (1 - lambda_) * (1 - smaller / larger) + lambda_ * distance
    return 1 - final[1:]


def refine(detections: Detections, k1: int, k2: int, lambda_: float = 0.3) -> list[float]:
    rows = np.arange(len(detections.det))
    similarity = similarity_of(detections, 0, rows)
    before = similarity.copy()
    reranked = KReciprocalReranking(detections, k1=k1, k2=k2, lambda_=lambda_)
    refined = reranked(0, rows, similarity)
    np.testing.assert_array_equal(similarity, before)
    assert refined.dtype == np.float32
    return refined.tolist()


def test_reciprocal_neighbours_without_averaging() -> None:
    # The query and the first are each other's nearest. The other has nobody.
    # V(query) = (1, H, 0), V(first) = (H, 1, 0), V(other) = (0, 0, 1).
    result = refine(detections_of([LIKE, ALSO]), k1=1, k2=1)
    assert result == pytest.approx([0.3 * 0.5 + 0.7 * H, 0.3 * 0.5])


def test_averaging_over_the_nearest() -> None:
    # V(query) = V(first) = ((1 + H) / 2, (1 + H) / 2, 0), V(other) = (1 / 2, H / 2, 1 / 2).
    result = refine(detections_of([LIKE, ALSO]), k1=1, k2=2)
    jaccard = (0.5 + H / 2) / (1 + H + 0.5)
    assert result == pytest.approx([0.3 * 0.5 + 0.7, 0.3 * 0.5 + 0.7 * jaccard])


def test_a_set_of_which_two_thirds_are_shared_is_joined() -> None:
    # Two on one side of the query and three on the other, of which the last is not among the
    # query's four nearest. It is joined: the set of each of the two before it is these three.
    detections = detections_of(circle(-10, -11, 20, 25, 30), circle(0))
    result = refine(detections, k1=4, k2=1, lambda_=0)

    def entry(degrees: float) -> float:
        return float(np.exp(np.cos(np.deg2rad(degrees)) - 1))

    # V(query) holds all, V(last) the three.
    smaller = entry(20) + entry(25) + entry(30)
    larger = 1 + entry(10) + entry(11) + entry(10) + entry(5) + 1
    assert result[-1] == pytest.approx(smaller / larger)


def test_share_of_the_old_similarity() -> None:
    detections = detections_of([LIKE, ALSO, QUERY])
    assert refine(detections, k1=1, k2=1, lambda_=1) == [0.5, 0.5, 1]
    assert refine(detections, k1=1, k2=1, lambda_=0) == pytest.approx([0, 0, 1])


def test_weighted_by_the_score() -> None:
    detections = detections_of([LIKE, ALSO])
    detections.det[:, 4] = [0.5, 1]
    reranked = KReciprocalReranking(detections, k1=1, k2=1, weighted=True)
    result = reranked(0, np.arange(2), np.float32([0.25, 0.5]))
    assert result.tolist() == pytest.approx([(0.3 * 0.5 + 0.7 * H) / 2, 0.3 * 0.5])


def test_an_empty_gallery() -> None:
    for detections in (detections_of([LIKE]), detections_of([])):
        reranked = KReciprocalReranking(detections)
        none = np.zeros(0, dtype=np.int64)
        assert reranked(0, none, np.zeros(0, dtype=np.float32)).tolist() == []


def test_one_detection() -> None:
    for emb in (QUERY, LIKE, -QUERY):
        detections = detections_of([emb])
        expected = reference(detections, 0, np.arange(1), 20, 6, 0.3)
        assert refine(detections, k1=20, k2=6) == pytest.approx(expected.tolist())


@pytest.mark.parametrize("k1", [1, 2, 20])
def test_all_similarities_equal(k1: int) -> None:
    detections = detections_of([QUERY] * 8)
    expected = reference(detections, 0, np.arange(8), k1, 3, 0.3)
    result = refine(detections, k1, 3)
    assert result == pytest.approx(expected.tolist())
    assert result[0] == pytest.approx(1)


def test_both_copies_of_an_image_get_the_same() -> None:
    detections = detections_of([LIKE, ALSO, QUERY])
    reranked = KReciprocalReranking(detections, k1=2, k2=2)
    rows = np.array([2, 0, 2, 1])
    once = reranked(0, np.arange(3), similarity_of(detections, 0, np.arange(3)))
    result = reranked(0, rows, similarity_of(detections, 0, rows))
    assert result.tolist() == once[rows].tolist()


# Few directions, so that distances are often equal; products are exact.
grids = st.lists(st.sampled_from([-0.5, 0.0, 0.5, 1.0]), min_size=3, max_size=3)


@settings(max_examples=200)
@given(
    st.lists(grids, min_size=1, max_size=14),
    st.lists(grids, min_size=1, max_size=2),
    st.integers(1, 8),
    st.integers(1, 4),
    st.sampled_from([0, 2, 32]),
    st.data(),
)
def test_equals_the_definitions(
    emb: list[list[float]],
    queries: list[list[float]],
    k1: int,
    k2: int,
    max_changes: int,
    data: st.DataObject,
) -> None:
    detections = detections_of(np.array(emb), np.array(queries))
    reranked = KReciprocalReranking(detections, k1=k1, k2=k2, lambda_=0.25)
    # One search after the other: neighbours are borrowed where galleries are alike.
    with (
        mock.patch.object(reranking, "_MAX_CHANGES", max_changes),
        mock.patch.object(reranking, "_MAX_GALLERIES", 2),
        mock.patch.object(reranking, "_BLOCK", 30),
    ):
        for _ in range(4):
            query = data.draw(st.integers(0, len(queries) - 1))
            left_out = data.draw(st.sets(st.integers(0, len(emb) - 1), max_size=4))
            rows = np.array(sorted(set(range(len(emb))) - left_out), dtype=np.int64)
            result = reranked(query, rows, similarity_of(detections, query, rows))
            expected = reference(detections, query, rows, k1, k2, 0.25)
            np.testing.assert_allclose(result, expected, atol=1e-6)


def test_equals_the_definitions_in_a_larger_world() -> None:
    rng = np.random.default_rng(0)
    people = rng.standard_normal((20, 16))
    emb = people[rng.integers(0, 20, 260)] + 0.5 * rng.standard_normal((260, 16))
    emb /= np.linalg.norm(emb, axis=1, keepdims=True)
    detections = detections_of(emb[10:], emb[:10])
    reranked = KReciprocalReranking(detections)
    for query in range(10):
        # The whole set but for a frame, and now and then the half of it.
        frame = np.arange(5 * query, 5 * query + 5)
        rows = np.delete(np.arange(250), np.arange(125) if query % 4 == 3 else frame)
        result = reranked(query, rows, similarity_of(detections, query, rows))
        expected = reference(detections, query, rows, 20, 6, 0.3)
        np.testing.assert_allclose(result, expected, atol=1e-6)
    # Most detections share nothing with a query: the search for those that do is put to the test.
    assert 0 < np.count_nonzero(result > 0.3 * similarity_of(detections, 9, rows) + 1e-6) < 200


def test_neighbours_are_found_once_for_galleries_that_are_alike() -> None:
    rng = np.random.default_rng(0)
    detections = detections_of(rng.standard_normal((100, 4)))
    reranked = KReciprocalReranking(detections, k1=3, k2=2)
    of = reranking._Neighbours.of
    with mock.patch.object(reranking._Neighbours, "of", side_effect=of) as made:
        for start in (0, 10, 20, 0, 90):
            rows = np.delete(np.arange(100), np.arange(start, start + 10))
            reranked(0, rows, similarity_of(detections, 0, rows))
        assert made.call_count == 1
        reranked(0, np.arange(40), similarity_of(detections, 0, np.arange(40)))
        assert made.call_count == 2


def test_packed_neighbours_are_in_the_order_of_their_similarity() -> None:
    similarity = np.float32([[-1, -0.5, -1e-30, 0, 1e-30, 0.5, 1]])
    keys = reranking._pack(similarity, np.arange(7)[::-1])[0]
    assert (np.diff(keys) > 0).all()
    assert reranking._index_of(keys).tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert keys[0] > reranking._NONE
    assert keys[-1] < reranking._SELF
    # Of equal ones the lower index is nearer, and a zero has no sign.
    zeros = reranking._pack(np.float32([[0.0, -0.0, 0.0]]), np.arange(3))[0]
    assert zeros[0] > zeros[1] > zeros[2]


def test_in_a_search() -> None:
    # The first is more similar to the query than the second, but nearer to a crowd of its own.
    detections = detections_of(circle(41, -60, 65, 66, 67), circle(0))
    detections.det[1, :4] += 100
    gallery = Gallery(None, np.zeros(0, int), np.array([1]), np.array([[100.0, 100, 110, 120]]))
    protocol = SearchProtocol(
        name="world",
        images=detections.names,
        cam_ids=np.zeros(5, dtype=np.int64),
        queries=(Query("s0.jpg", (0, 0, 10, 20), 1),),
        galleries=(gallery,),
    )
    assert score_search(detections, protocol).ranks[0].tolist() == [2]
    refined = KReciprocalReranking(detections, k1=2, k2=1)
    assert score_search(detections, protocol, refine=refined).ranks[0].tolist() == [1]


@pytest.mark.parametrize("options", [{"k1": 0}, {"k2": 0}, {"lambda_": -0.1}, {"lambda_": 1.1}])
def test_refuses_parameters_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(KdpsError, match="lambda in 0 to 1"):
        KReciprocalReranking(detections_of([LIKE]), **options)
