# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kdps.data.protocol import Gallery, Query, SearchProtocol
from kdps.errors import KdpsError
from kdps.structures.detections import Detections, check_same_protocol

NO_IMAGES = np.zeros(0, dtype=np.int64)

DETECTIONS = Detections(
    names=("a.jpg", "b.jpg", "c.jpg"),
    det_count=np.array([2, 0, 1], dtype=np.int32),
    det=np.ones((3, 5), dtype=np.float32),
    emb=np.ones((3, 1), dtype=np.float32),
    query_emb=np.ones((1, 1), dtype=np.float32),
)
PROTOCOL = SearchProtocol(
    name="made",
    images=DETECTIONS.names,
    cam_ids=np.zeros(3, dtype=np.int64),
    queries=(Query("a.jpg", (0, 0, 1, 1), 1),),
    galleries=(Gallery(None, NO_IMAGES, NO_IMAGES, np.zeros((0, 4))),),
)


def test_where_the_rows_of_an_image_are() -> None:
    assert DETECTIONS.offsets.tolist() == [0, 2, 2, 3]
    assert DETECTIONS.image_of_det.tolist() == [0, 0, 2]


def test_same_protocol() -> None:
    check_same_protocol(DETECTIONS, PROTOCOL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ("a.jpg", "b.jpg")}, "detections are of 2 images, but made has 3"),
        (
            {"names": ("a.jpg", "c.jpg", "b.jpg")},
            r"detections have 'c\.jpg' as image 1, but made has 'b\.jpg' there",
        ),
        (
            {"query_emb": np.ones((2, 1), dtype=np.float32)},
            "detections hold 2 query embeddings, but made has 1 queries",
        ),
    ],
)
def test_another_protocol(changes: dict, message: str) -> None:
    with pytest.raises(KdpsError, match=f"^{message}$"):
        check_same_protocol(replace(DETECTIONS, **changes), PROTOCOL)
