# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kdps.data.protocol import Query
from kdps.errors import KdpsError
from kdps.evaluation.query_by_iou import embed_queries_by_iou
from kdps.evaluation.search import score_search

PERSON = (10.0, 10.0, 50.0, 110.0)
NEAR = (12.0, 10.0, 52.0, 110.0)
ELSEWHERE = (200.0, 10.0, 240.0, 110.0)
A, B, C = np.eye(4, dtype=np.float32)[:3]


def test_the_best_overlap_gives_the_embedding(task) -> None:
    images = [[(ELSEWHERE, 0.9, A), (NEAR, 0.3, B), (PERSON, 0.1, C)], [(PERSON, 0.9, B)]]
    detections, protocol = task(images, [(1, PERSON)])
    assert embed_queries_by_iou(detections, protocol).query_emb.tolist() == [C.tolist()]
    by_score = embed_queries_by_iou(detections, protocol, score_thresh=0.2)
    assert by_score.query_emb.tolist() == [B.tolist()]
    assert score_search(by_score, protocol).ap.tolist() == [1]


def test_there_is_no_least_overlap(task) -> None:
    detections, protocol = task([[(ELSEWHERE, 0.9, B)], [(PERSON, 0.9, B)]], [(1, PERSON)])
    assert embed_queries_by_iou(detections, protocol).query_emb.tolist() == [B.tolist()]


def test_boxes_reach_a_pixel_beyond_their_corners(task) -> None:
    # Boxes that share an edge overlap by that pixel; without it both IoUs were 0.
    query = (0.0, 0.0, 4.0, 4.0)
    apart = (5.0, 0.0, 9.0, 4.0)
    images = [[(ELSEWHERE, 0.9, A), (apart, 0.9, B)]]
    detections, protocol = task(images, [(0, PERSON)])
    protocol = replace(protocol, queries=(Query("s0.jpg", query, 1),))
    assert embed_queries_by_iou(detections, protocol).query_emb.tolist() == [A.tolist()]
    touching = (4.0, 0.0, 8.0, 4.0)
    images = [[(ELSEWHERE, 0.9, A), (touching, 0.9, B)]]
    detections, _ = task(images, [(0, PERSON)])
    assert embed_queries_by_iou(detections, protocol).query_emb.tolist() == [B.tolist()]


def test_a_query_image_without_detections_finds_nothing(task) -> None:
    detections, protocol = task([[], [(PERSON, 0.9, B)]], [(1, PERSON)])
    embedded = embed_queries_by_iou(detections, protocol)
    assert embedded.query_emb.tolist() == [[0, 0, 0, 0]]
    result = score_search(embedded, protocol)
    assert result.ap.tolist() == [0]
    assert (result.top == -1).all()


def test_other_images_are_refused(task) -> None:
    detections, protocol = task([[], [(PERSON, 0.9, B)]], [(1, PERSON)])
    with pytest.raises(KdpsError, match="image 1"):
        embed_queries_by_iou(replace(detections, names=("s0.jpg", "s2.jpg")), protocol)
