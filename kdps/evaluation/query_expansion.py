# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Query expansion: search again with the mean of the query and what it found first.

From Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2018,
section 3.4 (alphaQE); with alpha 0 the average query expansion of Chum et al., "Total Recall",
ICCV 2007.
"""

from __future__ import annotations

import numpy as np

from kdps.errors import KdpsError
from kdps.evaluation.query_persons import with_query_embeddings
from kdps.evaluation.search import SearchResult
from kdps.structures.detections import Detections

# A mean shorter than this is what rounding left of embeddings that cancel out.
_MIN_LENGTH = 1e-6
# Queries at once: bounds the memory, changes no number.
_QUERIES_PER_BLOCK = 128


def expand_queries(
    detections: Detections, result: SearchResult, k: int, alpha: float = 3.0
) -> Detections:
    """Mix each query's embedding with those of the first k detections of its ranked list.

    The new query is the unit vector along ``q + sum_i max(q . e_i, 0) ** alpha * e_i``. The weights
    are cosine similarities of the embeddings, however the list was ranked (with confidence
    weighting, say). Where a list is shorter than k, what it has is taken. Of the persons of the
    query images (``qdet_emb``) the first one, which is the query, changes with it.

    Args:
        detections: what was searched.
        result: of a search among the same detections, with lists of k or more.
        k: how many of each list take part.
        alpha: how fast the weight falls with the similarity; 0 weighs all alike, also those of
            negative similarity.

    Returns:
        The detections with new ``query_emb``, (Q, D) float32 rows of unit length. A query that
        the others cancel out stays as it was.

    Raises:
        KdpsError: k is not positive, alpha is negative, the lists are shorter than k or not of
            these detections.
    """
    if k < 1 or alpha < 0:
        raise KdpsError(f"query expansion needs k >= 1 and alpha >= 0, got {k} and {alpha:g}")
    num_queries, length = result.top.shape
    if length < k:
        raise KdpsError(
            f"{result.name}: the ranked lists hold {length} detections, fewer than the {k} to "
            "expand queries with"
        )
    if num_queries != len(detections.query_emb) or result.top.max(initial=-1) >= len(
        detections.det
    ):
        raise KdpsError(f"{result.name}: the ranked lists are not of these detections")
    expanded = detections.query_emb.copy()
    for start in range(0, num_queries, _QUERIES_PER_BLOCK):
        block = slice(start, start + _QUERIES_PER_BLOCK)
        expanded[block] = _expand(
            detections.query_emb[block], detections.emb, result.top[block, :k], alpha
        )
    return with_query_embeddings(detections, expanded)


def _expand(queries: np.ndarray, emb: np.ndarray, top: np.ndarray, alpha: float) -> np.ndarray:
    """Args: queries (Q, D), emb (M, D), top (Q, k) rows of emb or -1. Returns (Q, D)."""
    found = np.zeros((*top.shape, emb.shape[1]))
    found[top >= 0] = emb[top[top >= 0]]
    similarity = np.einsum("qd,qkd->qk", queries, found)
    # A zero row stands where a list is shorter: of whatever weight, it adds nothing.
    weights = similarity.clip(min=0) ** alpha
    mean = queries + np.einsum("qk,qkd->qd", weights, found)
    length = np.linalg.norm(mean, axis=1, keepdims=True)
    cancelled = length < _MIN_LENGTH
    return np.where(cancelled, queries, mean / np.where(cancelled, 1, length))
