# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Context bipartite graph matching: people seen together once are likely seen together again.

From Li and Miao, "Sequential End-to-end Network for Efficient Person Search" (SeqNet), AAAI 2021,
section 3.4, with the rule of its public evaluator where the two differ.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from kdps.errors import KdpsError
from kdps.evaluation.ranking import rank_candidates
from kdps.structures.detections import Detections
from kdps.structures.ragged import find_sorted, offsets_of

# (k1, k2) that SeqNet chose for each set. PSTR takes (30, 4) and (30, 3) and averages.
DEFAULT_K = {"cuhk_sysu": (10, 3), "prw": (30, 4)}


class ContextMatching:
    """Lift the similarity of the detection that is matched to the query among its companions.

    Only the images that own the ``k1`` detections most similar to the query are looked at. In each,
    the first ``k2`` persons of the query's image are matched one to one with the image's detections
    so that the sum of similarities is largest. The detection matched to the query gets the largest
    single similarity of that matching. (The paper speaks of the sum; the published code and numbers
    use the largest.) A query that stays unmatched, because the image has fewer detections than
    persons are matched, changes nothing there. No similarity ever falls.

    Of equal similarities at the end of the ``k1`` the first in the gallery are taken, and of
    several best matchings the one that ``scipy.optimize.linear_sum_assignment`` finds.
    """

    def __init__(
        self,
        detections: Detections,
        *,
        k1: int,
        k2: int,
        weighted: bool = False,
        average: bool = False,
    ) -> None:
        """
        Args:
            detections: with the persons of the query images (``qdet_count``, ``qdet_emb``), of
                each image the given box first and then by descending score.
            k1: detections whose images are matched.
            k2: persons of the query's image that are matched, the query included.
            weighted: multiply gallery embeddings by the detection's score, as the search does.
            average: replace a similarity by its mean with the matched one (PSTR) instead of by
                the matched one (SeqNet).

        Raises:
            KdpsError: the persons of the query images are absent, a query image has none, or k1
                or k2 is not positive.
        """
        if detections.qdet_count is None or detections.qdet_emb is None:
            raise KdpsError(
                "the detections hold no persons of the query images "
                "(qdet_count, qdet and qdet_emb), which context matching needs"
            )
        if (detections.qdet_count < 1).any():
            query = int(np.argmin(detections.qdet_count))
            raise KdpsError(f"qdet_count is 0 at query {query}: its own box should be the first")
        if k1 < 1 or k2 < 1:
            raise KdpsError(f"context matching needs k1 and k2 of 1 or more, got {k1} and {k2}")
        self._k1 = k1
        self._k2 = k2
        self._average = average
        self._emb = detections.emb
        self._scores = detections.det[:, 4:5] if weighted else None
        self._image_of_det = detections.image_of_det
        self._num_images = len(detections.names)
        self._persons = detections.qdet_emb
        self._offsets = offsets_of(detections.qdet_count)

    def __call__(self, query: int, rows: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        """Refine the similarities of one query.

        Args:
            query: index in the protocol.
            rows: (L,) int64 rows of ``Detections.det``: what the score cut left of the gallery,
                image after image. An image may come twice; its detections are then matched once.
            similarity: (L,) float32 similarities of these detections.

        Returns:
            (L,) float32, a new array.
        """
        detections, values = self._match(query, self._gallery_of_best(rows, similarity))
        refined = similarity.copy()
        matched = find_sorted(detections, rows)
        places = np.flatnonzero(matched >= 0)
        values = values[matched[places]]
        refined[places] = (values + refined[places]) / 2 if self._average else values
        return refined

    def _gallery_of_best(self, rows: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        """Ascending rows of all detections in the images that own the best ones."""
        images = np.zeros(self._num_images, dtype=bool)
        best = rank_candidates(similarity, np.zeros(0, dtype=np.int64), self._k1).best
        images[self._image_of_det[rows[best]]] = True
        return np.unique(rows[images[self._image_of_det[rows]]])

    def _match(self, query: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The detection matched to the query in each image, ascending, and its new similarity."""
        start = self._offsets[query]
        persons = self._persons[start : min(start + self._k2, self._offsets[query + 1])]
        embeddings = self._emb[rows]
        if self._scores is not None:
            embeddings = (embeddings * self._scores[rows]).astype(np.float32)
        # Summed and rounded as in the search, so that the query's own row is what it got there.
        weights = (persons.astype(np.float64) @ embeddings.T.astype(np.float64)).astype(np.float32)
        _, counts = np.unique(self._image_of_det[rows], return_counts=True)
        ends = offsets_of(counts).tolist()
        matched, values = [], []
        for first, end in zip(ends[:-1], ends[1:], strict=True):
            graph = weights[:, first:end]
            person, detection = linear_sum_assignment(graph, maximize=True)
            # Persons come in ascending order: the query is the first, or unmatched.
            if person[0] == 0:
                matched.append(rows[first + detection[0]])
                values.append(graph[person, detection].max())
        return np.array(matched, dtype=np.int64), np.array(values, dtype=np.float32)
