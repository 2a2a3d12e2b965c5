# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from dataclasses import replace

import numpy as np

from kdps.evaluation.query_persons import with_query_persons

PERSON = (10.0, 10.0, 50.0, 110.0)
NEAR = (12.0, 10.0, 52.0, 110.0)
LEFT = (60.0, 10.0, 100.0, 110.0)
RIGHT = (200.0, 10.0, 240.0, 110.0)
A, B, C, D = np.eye(4, dtype=np.float32)


def test_the_query_first_then_others_by_score_without_itself(task) -> None:
    images = [[(LEFT, 0.6, B), (NEAR, 0.9, C), (RIGHT, 0.8, D)], [(PERSON, 0.9, A)]]
    detections, protocol = task(images, [(1, PERSON)], query=A)
    found = with_query_persons(detections, protocol)
    assert found.qdet_count.tolist() == [3]
    assert found.qdet[:, :4].tolist() == [list(PERSON), list(RIGHT), list(LEFT)]
    assert found.qdet[:, 4].tolist() == [1, np.float32(0.8), np.float32(0.6)]
    assert found.qdet_emb.tolist() == [A.tolist(), D.tolist(), B.tolist()]


def test_the_given_box_comes_first_even_at_equal_scores(task) -> None:
    detections, protocol = task([[(LEFT, 1.0, B)], [(PERSON, 0.9, A)]], [(1, PERSON)], query=A)
    assert with_query_persons(detections, protocol).qdet_emb[0].tolist() == A.tolist()


def test_two_queries_keep_apart(task) -> None:
    detections, protocol = task([[(LEFT, 0.6, B)], [(PERSON, 0.9, A)]], [(1, PERSON)], query=A)
    query = protocol.queries[0]
    protocol = replace(
        protocol,
        queries=(replace(query, image="s1.jpg"), query),
        galleries=protocol.galleries * 2,
    )
    detections = replace(detections, query_emb=np.stack([A, A]))
    found = with_query_persons(detections, protocol)
    assert found.qdet_count.tolist() == [1, 2]


def test_what_is_there_stays(task) -> None:
    detections, protocol = task([[(LEFT, 0.6, B)], [(PERSON, 0.9, A)]], [(1, PERSON)], query=A)
    stored = with_query_persons(detections, protocol)
    stored = replace(stored, qdet_count=np.array([1]), qdet=stored.qdet[:1], qdet_emb=D[None])
    assert with_query_persons(stored, protocol).qdet_emb.tolist() == [D.tolist()]
