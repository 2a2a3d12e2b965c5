# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Queries that take the embedding of a detection, for models that cannot be given a box."""

from __future__ import annotations

import numpy as np

from kdps.data.protocol import SearchProtocol
from kdps.evaluation.metrics import paired_iou
from kdps.evaluation.query_persons import with_query_embeddings
from kdps.structures.detections import Detections, check_same_images_of
from kdps.structures.ragged import argmax_per_group, members_of


def embed_queries_by_iou(
    detections: Detections, protocol: SearchProtocol, *, score_thresh: float = 0.0
) -> Detections:
    """Give each query the embedding of the detection in its image that overlaps its box most.

    As AlignPS does it (Yan et al., "Anchor-Free Person Search", CVPR 2021), with its IoU, in which
    a box reaches one pixel beyond its corners, and with no least overlap.

    Args:
        detections: what the model found, in the images of ``protocol``; ``query_emb`` is not
            looked at.
        protocol: queries and their boxes.
        score_thresh: detections below are not taken.

    Returns:
        Detections with new ``query_emb``. A query without a detection in its image gets a row of
        zeros, which the search scores as a query that found nothing.

    Raises:
        KdpsError: detections and protocol are not of the same images.
    """
    check_same_images_of(detections, protocol)
    image = protocol.query_images
    boxes = np.array([query.bbox for query in protocol.queries], dtype=np.float64)
    query, row = members_of(image, detections.offsets)
    kept = detections.det[row, 4] >= score_thresh
    query, row = query[kept], row[kept]
    one_pixel = np.array([0, 0, 1, 1])
    iou = paired_iou(boxes[query] + one_pixel, detections.det[row, :4] + one_pixel)
    best = argmax_per_group(query, iou)
    query_emb = np.zeros((len(image), detections.emb.shape[1]), dtype=np.float32)
    query_emb[query[best]] = detections.emb[row[best]]
    return with_query_embeddings(detections, query_emb)
