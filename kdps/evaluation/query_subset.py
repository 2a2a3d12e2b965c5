# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Some of the queries that detections hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kdps.data.protocol import SearchProtocol
from kdps.errors import KdpsError
from kdps.structures.detections import Detections, check_same_protocol
from kdps.structures.ragged import expand, offsets_of


def select_queries(
    detections: Detections, whole: SearchProtocol, part: SearchProtocol
) -> Detections:
    """The detections with the queries of another protocol on the same images.

    Args:
        detections: with the queries of ``whole``.
        whole: the protocol that the detections were made for.
        part: a protocol whose queries are all in ``whole``, in any order.

    Returns:
        ``detections`` itself where both protocols have the same queries.

    Raises:
        KdpsError: a query of ``part`` is not in ``whole``, or the detections are not of ``whole``.
    """
    check_same_protocol(detections, whole)
    if part.queries == whole.queries:
        return detections
    place = {(query.image, query.bbox): i for i, query in enumerate(whole.queries)}
    rows = []
    for i, query in enumerate(part.queries):
        row = place.get((query.image, query.bbox))
        if row is None:
            box = ", ".join(f"{value:g}" for value in query.bbox)
            raise KdpsError(
                f"{part.name}: query {i} (image {query.image}, box {box}) is not among the queries "
                f"of {whole.name}, of which the detections are"
            )
        rows.append(row)
    persons = {}
    if detections.qdet_count is not None:
        counts = detections.qdet_count[rows]
        chosen = expand(offsets_of(detections.qdet_count)[rows], counts)
        persons = {
            "qdet_count": counts,
            "qdet": detections.qdet[chosen],
            "qdet_emb": detections.qdet_emb[chosen],
        }
    return replace(detections, query_emb=detections.query_emb[np.array(rows)], **persons)
