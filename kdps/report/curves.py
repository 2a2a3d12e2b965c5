# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Curves over all queries of a search."""

from __future__ import annotations

import numpy as np

from kdps.evaluation.search import SearchResult

# Recall of each point of a precision-recall curve, in percent; COCO's choice of levels.
RECALL_LEVELS = np.arange(101)


def mean_precision(result: SearchResult) -> np.ndarray:
    """Interpolated precision at each level of recall, averaged over the queries that are scored.

    The i-th true positive of a query with n truths, at rank r, has precision i / r at recall i / n.
    At a level of recall counts the best precision at that recall or a higher one, and 0 beyond what
    the query reached. (Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV
    2010, section 4.2.)

    Returns:
        (101,) float64 in [0, 1], never rising, for ``RECALL_LEVELS``.
    """
    total = np.zeros(len(RECALL_LEVELS))
    for query in np.flatnonzero(result.scored):
        ranks = result.ranks[query]
        precision = np.arange(1, len(ranks) + 1) / ranks
        best = np.maximum.accumulate(precision[::-1])[::-1]
        # True positives that a level asks for, in whole numbers: 0.29 * 100 would ask for 30.
        needed = np.maximum(1, -(-RECALL_LEVELS * result.num_truths[query] // 100))
        reached = needed <= len(ranks)
        total[reached] += best[needed[reached] - 1]
    return total / result.scored.sum()
