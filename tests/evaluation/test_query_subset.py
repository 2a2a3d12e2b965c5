# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kdps.data.protocol import Query
from kdps.errors import KdpsError
from kdps.evaluation.query_subset import select_queries

PERSON = (10.0, 10.0, 50.0, 110.0)
OTHER = (60.0, 10.0, 100.0, 110.0)
ROWS = np.eye(4, dtype=np.float32)


@pytest.fixture
def whole(task):
    detections, protocol = task([[(PERSON, 0.9, ROWS[0])]], [(0, PERSON)])
    queries = (
        Query("s0.jpg", PERSON, 1),
        Query("s0.jpg", OTHER, 2),
        Query("s0.jpg", PERSON[:3] + (99.0,), 3),
    )
    protocol = replace(protocol, queries=queries, galleries=protocol.galleries * 3)
    detections = replace(
        detections,
        query_emb=ROWS[:3],
        qdet_count=np.array([1, 2, 1]),
        qdet=np.ones((4, 5), dtype=np.float32),
        qdet_emb=ROWS[[0, 1, 3, 2]],
    )
    return detections, protocol


def part_of(protocol, places):
    return replace(
        protocol,
        name="part",
        queries=tuple(protocol.queries[i] for i in places),
        galleries=protocol.galleries[: len(places)],
    )


def test_queries_in_another_order_take_their_persons_along(whole) -> None:
    detections, protocol = whole
    part = select_queries(detections, protocol, part_of(protocol, [2, 1]))
    assert part.query_emb.tolist() == ROWS[[2, 1]].tolist()
    assert part.qdet_count.tolist() == [1, 2]
    assert part.qdet_emb.tolist() == ROWS[[2, 1, 3]].tolist()


def test_the_same_queries_change_nothing(whole) -> None:
    detections, protocol = whole
    assert select_queries(detections, protocol, part_of(protocol, [0, 1, 2])) is detections


def test_an_unknown_query_is_named(whole) -> None:
    detections, protocol = whole
    part = part_of(protocol, [1])
    part = replace(part, queries=(Query("s0.jpg", (1.0, 2.0, 3.0, 4.5), 1),))
    message = r"part: query 0 \(image s0\.jpg, box 1, 2, 3, 4\.5\) is not among the queries of hand"
    with pytest.raises(KdpsError, match=message):
        select_queries(detections, protocol, part)
