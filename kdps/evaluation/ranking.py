# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The ranking of one query's candidates, as far as its numbers need it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_LOWEST = np.finfo(np.float32).min
# Up to here all candidates are sorted; picking the ones that matter would take longer.
_SHORT = 4096


class Ranking(NamedTuple):
    """Where the true positives stand, and the best candidates.

    Attributes:
        precision: (P,) share of true positives among the candidates at least as similar as each
            true positive, in the order given.
        ranks: (P,) int64 places of the true positives, from 1.
        best: (K,) int64 the best candidates, best first.
    """

    precision: np.ndarray
    ranks: np.ndarray
    best: np.ndarray


def rank_candidates(similarity: np.ndarray, positives: np.ndarray, top: int) -> Ranking:
    """Find the places of the true positives by counting what is above them.

    Equal similarities are one step in the precision, as in
    ``sklearn.metrics.average_precision_score``. In ranks and in the list of the best they keep
    their order in ``similarity``: in a search, gallery images in protocol order, then detections
    in the order the model gave them.

    Args:
        similarity: (L,) float32; -inf marks what takes no part.
        positives: (P,) distinct indices of true positives that take part.
        top: length of the list of the best, which is shorter where fewer take part.
    """
    values = similarity[positives]
    retrieved = None
    part = similarity
    if similarity.size > _SHORT:
        # The candidates below the last true positive and the list of the best decide nothing.
        needed = min(_below_kth(similarity, top), values.min(initial=np.inf))
        retrieved = (similarity >= needed).nonzero()[0]
        part = similarity[retrieved]
    ordered = part.copy()
    ordered.sort()
    # Methods, since their functions take as long again for lists of a few hundred.
    not_lower = ordered.size - ordered.searchsorted(values, side="left")
    higher = ordered.size - ordered.searchsorted(values, side="right")
    ranks = higher + 1
    for i in (not_lower > ranks).nonzero()[0]:
        ranks[i] += np.count_nonzero(similarity[: positives[i]] == values[i])
    num_correct = values.size - values[values.argsort()].searchsorted(values, side="left")
    lowest = _LOWEST
    if top < ordered.size:
        lowest = max(lowest, ordered[-top]) if top else np.inf
    best = (part >= lowest).nonzero()[0]
    best = best[(-part[best]).argsort(kind="stable")][:top]
    if retrieved is not None:
        best = retrieved[best]
    return Ranking(num_correct / not_lower, ranks, best)


def _below_kth(values: np.ndarray, k: int) -> float:
    """A number that at least k values, if there are as many, reach; infinity for k = 0."""
    if k < 1:
        return np.inf
    if k >= values.size:
        return -np.inf
    # The k-th largest of the maxima of parts is not above the k-th largest of all, and quicker
    # to find.
    parts = 16 * k
    length = values.size // parts
    if length > 1:
        values = values[: parts * length].reshape(parts, length).max(axis=1)
    return np.partition(values, values.size - k)[values.size - k]
