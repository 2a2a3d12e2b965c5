# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Analytic cases of the search metric; each follows from the protocol by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kdps.data.protocol import Gallery, Query, SearchProtocol
from kdps.errors import KdpsError
from kdps.evaluation import similarity as similarity_module
from kdps.evaluation.search import score_search
from kdps.structures.detections import Detections

Task = Callable[..., tuple[Detections, SearchProtocol]]

SAME = np.array([1, 0, 0, 0], dtype=np.float32)  # similarity 1 to the query
LIKE = np.array([0.5, 0.5, 0.5, 0.5], dtype=np.float32)  # 0.5
OTHER = np.array([0, 1, 0, 0], dtype=np.float32)  # 0

PERSON = (10.0, 10.0, 50.0, 110.0)
NEAR = (12.0, 10.0, 52.0, 110.0)
ELSEWHERE = (200.0, 10.0, 240.0, 110.0)


def test_perfect(task: Task) -> None:
    images = [[(PERSON, 0.9, SAME)], [(ELSEWHERE, 0.9, OTHER)], [(PERSON, 0.8, SAME)]]
    result = score_search(*task(images, [(0, PERSON), (2, PERSON)]))
    assert result.metrics() == {"mAP": 100, "top1": 100, "top5": 100, "top10": 100}
    assert result.ranks[0].tolist() == [1, 2]
    assert result.top[0].tolist() == [0, 2, 1] + [-1] * 7
    assert result.on_person[0, :3].tolist() == [True, True, False]


def test_all_missed(task: Task) -> None:
    images = [[(ELSEWHERE, 0.9, SAME)], []]
    result = score_search(*task(images, [(0, PERSON), (1, PERSON)]))
    assert result.metrics() == {"mAP": 0, "top1": 0, "top5": 0, "top10": 0}
    assert result.num_truths.tolist() == [2]
    assert result.ranks[0].size == 0


def test_no_detection_at_all(task: Task) -> None:
    result = score_search(*task([[], []], [(0, PERSON)]))
    assert result.ap.tolist() == [0]
    assert (result.top == -1).all()


def test_wrong_person_first_and_one_truth_missed(task: Task) -> None:
    # Ranks: wrong, right; one of two truths has no detection: (1/2) / 2.
    images = [[(ELSEWHERE, 0.9, SAME)], [(PERSON, 0.9, LIKE)], []]
    result = score_search(*task(images, [(1, PERSON), (2, PERSON)]))
    assert result.ap[0] == pytest.approx(0.25)
    assert [bool(result.hits(k)[0]) for k in (1, 5, 10)] == [False, True, True]
    assert result.cmc(3).tolist() == [0, 1, 1]


def test_only_the_most_similar_detection_on_a_person_counts(task: Task) -> None:
    # Two detections on the person; another's detection between them: positive, wrong, wrong.
    images = [[(PERSON, 0.9, OTHER), (NEAR, 0.6, SAME)], [(ELSEWHERE, 0.9, LIKE)]]
    result = score_search(*task(images, [(0, PERSON)]))
    assert result.ap[0] == 1
    assert result.top[0, :3].tolist() == [1, 2, 0]
    assert result.on_person[0, :3].tolist() == [True, False, True]
    assert result.counted[0, :3].tolist() == [True, False, False]


def test_tie_is_one_step_and_top_k_takes_protocol_order(task: Task) -> None:
    wrong, right = [(ELSEWHERE, 0.9, SAME)], [(PERSON, 0.9, SAME)]
    wrong_first = score_search(*task([wrong, right], [(1, PERSON)]))
    right_first = score_search(*task([right, wrong], [(0, PERSON)]))
    assert wrong_first.ap[0] == right_first.ap[0] == 0.5
    assert not wrong_first.hits(1)[0]
    assert right_first.hits(1)[0]


def test_an_image_listed_twice_is_ranked_once_but_both_truths_count(task: Task) -> None:
    images = [[(ELSEWHERE, 0.9, OTHER)], [(PERSON, 0.9, SAME)]]
    detections, protocol = task(images, [(1, PERSON), (1, PERSON)], gallery=[1, 1, 0])
    result = score_search(detections, protocol)
    assert result.ap[0] == 0.5
    assert result.ranks[0].tolist() == [1]


def test_the_first_listing_of_an_image_gives_the_box(task: Task) -> None:
    images = [[(PERSON, 0.9, SAME)]]
    for boxes, ap in (((PERSON, ELSEWHERE), 0.5), ((ELSEWHERE, PERSON), 0.0)):
        truths = [(0, box) for box in boxes]
        assert score_search(*task(images, truths, gallery=[0, 0])).ap[0] == ap


def test_an_image_outside_the_gallery_takes_no_part(task: Task) -> None:
    images = [[(ELSEWHERE, 0.9, SAME)], [(PERSON, 0.9, LIKE)]]
    truths = [(1, PERSON)]
    assert score_search(*task(images, truths)).ap[0] == 0.5
    assert score_search(*task(images, truths, gallery=[1])).ap[0] == 1
    assert score_search(*task(images, truths, excluded=[0])).ap[0] == 1


def test_score_threshold_and_weighting(task: Task) -> None:
    images = [[(ELSEWHERE, 0.25, SAME)], [(PERSON, 1.0, LIKE)]]
    detections, protocol = task(images, [(1, PERSON)])
    assert score_search(detections, protocol, score_thresh=0.5).ap[0] == 1
    assert score_search(detections, protocol, score_thresh=0.25).ap[0] == 0.5
    weighted = score_search(detections, protocol, score_thresh=0.25, weighted=True)
    assert weighted.ap[0] == 1
    assert weighted.similarity[0, :2].tolist() == [0.5, 0.25]


def test_iou_threshold_is_reached_by_equality(task: Task) -> None:
    half = (PERSON[0], PERSON[1], 30.0, PERSON[3])  # IoU 0.5 exactly
    result = score_search(*task([[(half, 0.9, SAME)]], [(0, PERSON)]))
    assert result.ap[0] == 1


def test_a_query_without_a_truth_is_left_out_of_the_means(task: Task) -> None:
    detections, protocol = task([[(PERSON, 0.9, SAME)]], [(0, PERSON)])
    empty = task([[]], [], gallery=[])[1].galleries[0]
    protocol = replace(
        protocol, queries=protocol.queries * 2, galleries=(protocol.galleries[0], empty)
    )
    detections = replace(detections, query_emb=np.stack([SAME, SAME]))
    result = score_search(detections, protocol)
    assert result.scored.tolist() == [True, False]
    assert np.isnan(result.ap[1])
    assert result.metrics()["mAP"] == 100
    assert result.cmc(1).tolist() == [1]


def test_errors(task: Task) -> None:
    images = [[(PERSON, 0.9, SAME)], []]
    with pytest.raises(KdpsError, match="no query has the person"):
        score_search(*task(images, []))
    with pytest.raises(KdpsError, match=r"query 0 has a truth in s1\.jpg, which is not in its"):
        score_search(*task(images, [(1, PERSON)], gallery=[0]))
    with pytest.raises(KdpsError, match=r"query 0 has a truth in s0\.jpg, which is not in its"):
        score_search(*task(images, [(0, PERSON)], excluded=[0]))
    detections, protocol = task(images, [(0, PERSON)])
    with pytest.raises(KdpsError, match="has 2"):
        score_search(task(images[:1], [])[0], protocol)
    with pytest.raises(KdpsError, match="hold 0 query embeddings"):
        score_search(replace(detections, query_emb=np.zeros((0, 4), np.float32)), protocol)


@pytest.mark.parametrize("block", [1, 3, 128])
def test_equal_embeddings_tie_wherever_they_stand(block: int, monkeypatch: Any) -> None:
    """In float32 a product gives equal columns other last digits, and again other ones by block."""
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((1001, 256))
    rows[[0, -1]] = rng.standard_normal(256)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    queries = rows[1:101]
    box = np.array([*PERSON, 0.9], dtype=np.float32)
    detections = Detections(
        names=tuple(f"s{i}.jpg" for i in range(len(rows))),
        det_count=np.ones(len(rows), dtype=np.int64),
        det=np.tile(box, (len(rows), 1)),
        emb=rows,
        query_emb=queries,
    )
    # The truth is in the last image, whose embedding the first one has as well.
    last = Gallery(None, np.zeros(0, np.int64), np.array([len(rows) - 1]), box[None, :4])
    protocol = SearchProtocol(
        name="ties",
        images=detections.names,
        cam_ids=np.zeros(len(rows), dtype=np.int64),
        queries=tuple(Query("s0.jpg", PERSON, 1) for _ in queries),
        galleries=(last,) * len(queries),
    )
    monkeypatch.setattr(similarity_module, "_QUERIES_PER_BLOCK", block)
    result = score_search(detections, protocol, top=len(rows))
    for ap, (rank,), top in zip(result.ap, result.ranks, result.top, strict=True):
        places = np.flatnonzero(np.isin(top, [0, len(rows) - 1]))
        # Neighbours in the list, the earlier image first, and one step of the curve.
        assert top[places].tolist() == [0, len(rows) - 1]
        assert places[1] == places[0] + 1 == rank - 1
        assert ap == 1 / rank


def test_block_size_changes_nothing(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = np.eye(4, dtype=np.float32)
    images = [
        [(PERSON if k else ELSEWHERE, 0.9, rows[rng.integers(4)]) for k in range(2)]
        for _ in range(9)
    ]
    detections, protocol = task(images, [(i, PERSON) for i in (1, 4, 5)])
    protocol = replace(protocol, queries=protocol.queries * 4, galleries=protocol.galleries * 4)
    detections = replace(detections, query_emb=rows)
    whole = score_search(detections, protocol)
    monkeypatch.setattr(similarity_module, "_QUERIES_PER_BLOCK", 3)
    parts = score_search(detections, protocol)
    np.testing.assert_array_equal(whole.ap, parts.ap)
    np.testing.assert_array_equal(whole.top, parts.top)
    assert len(set(whole.ap)) > 1


def test_a_truth_without_area_is_found_by_nobody(task: Task) -> None:
    flat = (10.0, 10.0, 10.0, 110.0)
    result = score_search(*task([[(ELSEWHERE, 0.9, SAME)]], [(0, flat)]))
    assert result.ap.tolist() == [0]


def test_arrays_that_do_not_fit_are_refused(task: Task) -> None:
    detections, protocol = task([[(PERSON, 0.9, SAME)], [(PERSON, 0.9, LIKE)]], [(1, PERSON)])
    broken = replace(detections, emb=np.full_like(detections.emb, np.nan))
    with pytest.raises(KdpsError, match="hand_made: 'emb' is not finite at row 0"):
        score_search(broken, protocol)
    with pytest.raises(KdpsError, match="hand_made: 'det' must be of shape"):
        score_search(replace(detections, det_count=np.array([1, 0])), protocol)
    nobody = replace(protocol, queries=(), galleries=())
    with pytest.raises(KdpsError, match="hand_made: it has no queries"):
        score_search(replace(detections, query_emb=detections.query_emb[:0]), nobody)
