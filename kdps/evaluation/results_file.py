# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``person_search_results.json``: the numbers and, per query, what it found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdps.checkpoint.files import atomic_write
from kdps.data.protocol import SearchProtocol
from kdps.evaluation.search import SearchResult
from kdps.structures.detections import Detections


def describe_queries(
    result: SearchResult, protocol: SearchProtocol, detections: Detections
) -> list[dict[str, Any]]:
    """Per query its accuracy and its ranked list, as JSON values.

    Returns:
        One dict per query with ``query_id``, ``image``, ``bbox`` (XYXY), ``person_id``, ``AP`` in
        percent (None without a truth), ``num_truths``, ``ranks`` of the true positives, and
        ``top``: dicts with ``image``, ``bbox``, ``score``, ``similarity``, ``match`` (on the person
        by the IoU rule) and ``counted`` (the true positive of its image).
    """
    image_of_det = detections.image_of_det
    described = []
    for i, query in enumerate(protocol.queries):
        top = []
        for place in np.flatnonzero(result.top[i] >= 0):
            row = result.top[i, place]
            top.append(
                {
                    "image": detections.names[image_of_det[row]],
                    "bbox": detections.det[row, :4].tolist(),
                    "score": float(detections.det[row, 4]),
                    "similarity": float(result.similarity[i, place]),
                    "match": bool(result.on_person[i, place]),
                    "counted": bool(result.counted[i, place]),
                }
            )
        described.append(
            {
                "query_id": i,
                "image": query.image,
                "bbox": [float(v) for v in query.bbox],
                "person_id": int(query.person_id),
                "AP": 100 * float(result.ap[i]) if result.scored[i] else None,
                "num_truths": int(result.num_truths[i]),
                "ranks": result.ranks[i].tolist(),
                "top": top,
            }
        )
    return described


def write_json(content: Mapping[str, Any], path: str | Path) -> None:
    """Write JSON into an existing folder, whole or not at all.

    Raises:
        KdpsError: the file cannot be written.
    """
    with atomic_write(path, "w") as file:
        json.dump(content, file, allow_nan=False)
