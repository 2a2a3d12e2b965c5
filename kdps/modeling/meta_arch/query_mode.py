# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Which embedding stands for a query."""

from __future__ import annotations

from detectron2.structures import Instances, pairwise_iou

from kdps.errors import KdpsError
from kdps.evaluation.settings import QUERY_MODES


def check_query_mode(mode: str) -> None:
    """Raise a KdpsError if ``MODEL.PERSON_SEARCH.QUERY_MODE`` is none of ``QUERY_MODES``."""
    if mode not in QUERY_MODES:
        known = " or ".join(map(repr, QUERY_MODES))
        raise KdpsError(f"MODEL.PERSON_SEARCH.QUERY_MODE is {mode!r}; it must be {known}")


def take_best_overlap(queries: Instances, detections: Instances) -> None:
    """Give each query the embedding of the detection that overlaps its box most, in place.

    AlignPS and PSTR, which have no features of regions, search with that. A query that no
    detection touches keeps the embedding it has.

    Args:
        queries: ``pred_boxes`` and ``pred_embeddings``.
        detections: the same of the query's image, in the same pixels.
    """
    if len(queries) == 0 or len(detections) == 0:
        return
    overlap, best = pairwise_iou(queries.pred_boxes, detections.pred_boxes).max(dim=1)
    touched = overlap > 0
    embeddings = queries.pred_embeddings.clone()
    embeddings[touched] = detections.pred_embeddings[best[touched]]
    queries.pred_embeddings = embeddings
