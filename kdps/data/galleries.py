# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Galleries that are a whole test set but for some images, as PRW's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from kdps.data.protocol import Gallery, Query, SearchProtocol

NO_IMAGES = np.zeros(0, dtype=np.int64)


def open_gallery_protocol(
    name: str,
    records: Sequence[dict[str, Any]],
    queries: Sequence[Query],
    excluded: Sequence[np.ndarray] | None = None,
) -> SearchProtocol:
    """A protocol in which each query is searched in all images of a test set.

    An identity that has several boxes in one image counts with the first one, as in the public
    evaluations of PRW.

    Args:
        name: name of the protocol.
        records: test records; their ``person_id`` are compared with the queries'.
        queries: the queries.
        excluded: per query, (E,) indices of the images left out; by default the query's own.
    """
    places: dict[int, dict[int, list[float]]] = defaultdict(dict)
    for index, record in enumerate(records):
        for annotation in record["annotations"]:
            if annotation["person_id"] >= 0:
                places[annotation["person_id"]].setdefault(index, annotation["bbox"])
    index_of = {record["image_id"]: index for index, record in enumerate(records)}
    if excluded is None:
        excluded = [np.array([index_of[query.image]]) for query in queries]
    galleries = []
    for query, left_out in zip(queries, excluded, strict=True):
        skip = set(left_out.tolist())
        truth = {i: box for i, box in places[query.person_id].items() if i not in skip}
        galleries.append(
            Gallery(
                images=None,
                excluded=np.asarray(left_out, dtype=np.int64),
                truth_images=np.fromiter(truth, dtype=np.int64, count=len(truth)),
                truth_boxes=np.array(list(truth.values()), dtype=np.float64).reshape(-1, 4),
            )
        )
    return SearchProtocol(
        name=name,
        images=tuple(record["image_id"] for record in records),
        cam_ids=np.array([record["cam_id"] for record in records], dtype=np.int64),
        queries=tuple(queries),
        galleries=tuple(galleries),
    )
