# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The people seen beside a query, for detections whose writer did not store them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kdps.data.protocol import SearchProtocol
from kdps.evaluation.metrics import paired_iou
from kdps.structures.detections import Detections, check_same_protocol
from kdps.structures.ragged import members_of, offsets_of

# A detection that overlaps the query's box more is of the same person. Ours: SeqNet lets its own
# suppression decide, at the same IoU.
SAME_PERSON_IOU = 0.5


def with_query_embeddings(detections: Detections, query_emb: np.ndarray) -> Detections:
    """Replace the embeddings of the queries, also among the persons of their images.

    Args:
        detections: whose ``qdet_emb``, if there, has each query first.
        query_emb: (Q, D) float32.
    """
    if detections.qdet_count is None or detections.qdet_emb is None:
        return replace(detections, query_emb=query_emb)
    # A query that is not embedded finds nothing, and a person needs a row of unit length.
    has_persons = (detections.qdet_count > 0) & query_emb.any(axis=1)
    persons = detections.qdet_emb.copy()
    persons[offsets_of(detections.qdet_count)[:-1][has_persons]] = query_emb[has_persons]
    return replace(detections, query_emb=query_emb, qdet_emb=persons)


def with_query_persons(detections: Detections, protocol: SearchProtocol) -> Detections:
    """Fill ``qdet_count``, ``qdet`` and ``qdet_emb`` from the detections of the query images.

    The given box comes first, with score 1 and the query's embedding; then the detections of its
    image by falling score, without those that are on the query. Arrays that are there stay.

    Raises:
        KdpsError: detections and protocol do not belong together.
    """
    check_same_protocol(detections, protocol)
    if detections.qdet_count is not None:
        return detections
    image = protocol.query_images
    given = np.array([[*query.bbox, 1] for query in protocol.queries], dtype=np.float32)
    query, row = members_of(image, detections.offsets)
    others = paired_iou(given[query, :4], detections.det[row, :4]) <= SAME_PERSON_IOU
    query, row = query[others], row[others]

    owner = np.concatenate([np.arange(len(image)), query])
    qdet = np.concatenate([given, detections.det[row]])
    qdet_emb = np.concatenate([detections.query_emb, detections.emb[row]])
    is_other = np.repeat([0, 1], [len(image), len(query)])
    order = np.lexsort((-qdet[:, 4], is_other, owner))
    return replace(
        detections,
        qdet_count=np.bincount(owner, minlength=len(image)),
        qdet=qdet[order],
        qdet_emb=qdet_emb[order],
    )
