# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Which detections are on the person that a query looks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdps.data.protocol import SearchProtocol
from kdps.evaluation.entries import GalleryEntries
from kdps.evaluation.metrics import is_on_person
from kdps.structures.ragged import argmax_per_group, members_of, offsets_of


@dataclass(frozen=True)
class Matches:
    """Pairs of a truth and a detection on it, by query.

    Attributes:
        num_truths: (Q,) truths of each query, every listing of a repeated image included.
        offsets: (Q + 1,) where each query's pairs start.
        truth: (P,) truth of each pair, numbered over all queries.
        column: (P,) place of its detection among the candidates of the query.
        ignored_offsets: (Q + 1,) where each query's ignored candidates start.
        ignored: places among the candidates that are neither right nor wrong.
        shared: whether a detection of a query may be on two truths.
    """

    num_truths: np.ndarray
    offsets: np.ndarray
    truth: np.ndarray
    column: np.ndarray
    ignored_offsets: np.ndarray
    ignored: np.ndarray
    shared: bool

    def ignored_by(self, query: int) -> np.ndarray:
        """Columns that are neither right nor wrong for a query."""
        return self.ignored[self.ignored_offsets[query] : self.ignored_offsets[query + 1]]

    def positives(self, query: int, similarity: np.ndarray) -> np.ndarray:
        """Columns of the true positives of a query, ascending.

        The true positive of a truth is the most similar detection on it. Where truths share
        detections, the most similar pair goes first, and what it takes is gone for the others.

        Args:
            query: index in the protocol.
            similarity: (L,) of its candidates.
        """
        pairs = slice(self.offsets[query], self.offsets[query + 1])
        truth, column = self.truth[pairs], self.column[pairs]
        if not len(truth):
            return column
        if self.shared:
            return _greedy(truth, column, similarity[column])
        if truth[0] == truth[-1]:
            return column[[np.argmax(similarity[column])]]
        return np.sort(column[argmax_per_group(truth, similarity[column])])


def match_truths(
    protocol: SearchProtocol,
    entries: GalleryEntries,
    boxes: np.ndarray,
    offsets: np.ndarray,
) -> Matches:
    """Find all detections that overlap a truth enough.

    Args:
        protocol: queries and their truths.
        entries: what is ranked for each query, and which truths it is compared with.
        boxes: (M, 4) XYXY detections, image after image in protocol order.
        offsets: (N + 1,) where each image's detections start.
    """
    boxes_of = [part for g in protocol.galleries for part in (g.truth_boxes, g.ignored_boxes)]
    truth_boxes = np.concatenate([np.reshape(part, (-1, 4)) for part in boxes_of])
    compared = entries.compared
    image, start = entries.truth_image[compared], entries.truth_start[compared]
    place, detection = members_of(image, offsets)
    on_person = is_on_person(truth_boxes[compared[place]], boxes[detection])
    place, detection = place[on_person], detection[on_person]
    truth = compared[place]
    column = start[place] + detection - offsets[image[place]]
    ignored = entries.is_ignored[truth]
    query = entries.truth_query[truth]
    num_queries = len(protocol.queries)
    return Matches(
        num_truths=np.bincount(entries.truth_query[~entries.is_ignored], minlength=num_queries),
        offsets=offsets_of(np.bincount(query[~ignored], minlength=num_queries)),
        truth=truth[~ignored],
        column=column[~ignored],
        ignored_offsets=offsets_of(np.bincount(query[ignored], minlength=num_queries)),
        ignored=column[ignored],
        shared=entries.shared,
    )


def _greedy(truth: np.ndarray, column: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """Pairs from the most similar on; equal ones by truth, then by column."""
    served: set[int] = set()
    taken: set[int] = set()
    for pair in np.lexsort((column, truth, -similarity)):
        if truth[pair] not in served and column[pair] not in taken:
            served.add(truth[pair])
            taken.add(column[pair])
    return np.array(sorted(taken), dtype=np.int64)
