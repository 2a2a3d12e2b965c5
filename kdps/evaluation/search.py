# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Person-search accuracy of a set of detections under a search protocol."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdps.data.protocol import Gallery, SearchProtocol
from kdps.errors import KdpsError
from kdps.evaluation.metrics import average_precision, ranks_of, top_ranked
from kdps.evaluation.truths import Matches, match_truths
from kdps.structures.detections import Detections, check_same_protocol
from kdps.structures.ragged import argmax_per_group, expand, offsets_of

TOP_K = (1, 5, 10)

# Queries per matrix product: bounds the memory, changes no number.
_QUERIES_PER_BLOCK = 128


@dataclass(frozen=True)
class SearchResult:
    """Accuracy of each query, and what it found.

    Q = queries, K = length of the ranked lists.

    Attributes:
        name: of the protocol.
        ap: (Q,) float64 average precision times recall; NaN for a query without a truth.
        num_truths: (Q,) entries of the gallery that hold the person.
        ranks: per query, the ascending ranks (from 1) of its true positives.
        top: (Q, K) rows of ``Detections.det``, best first; -1 where the gallery has fewer.
        similarity: (Q, K) float32 similarity of these detections.
        on_person: (Q, K) whether the detection is on the person by the IoU rule.
        counted: (Q, K) whether it is the true positive of its image; a second detection on the
            same person is not.
    """

    name: str
    ap: np.ndarray
    num_truths: np.ndarray
    ranks: tuple[np.ndarray, ...]
    top: np.ndarray
    similarity: np.ndarray
    on_person: np.ndarray
    counted: np.ndarray

    @property
    def scored(self) -> np.ndarray:
        """(Q,) bool: queries that have something to find; the others are left out of all means."""
        return self.num_truths > 0

    @property
    def first_rank(self) -> np.ndarray:
        """(Q,) int64 rank of the first true positive; 0 where nothing was found."""
        return np.array([ranks[0] if len(ranks) else 0 for ranks in self.ranks], dtype=np.int64)

    def hits(self, k: int) -> np.ndarray:
        """(Q,) bool: a true positive is among the first k."""
        first = self.first_rank
        return (first > 0) & (first <= k)

    def cmc(self, max_rank: int) -> np.ndarray:
        """(max_rank,) share of the scored queries with a true positive among the first 1, 2, ..."""
        first = self.first_rank[self.scored]
        counts = np.bincount(first[(first > 0) & (first <= max_rank)], minlength=max_rank + 1)
        return np.cumsum(counts[1:]) / len(first)

    def metrics(self) -> dict[str, float]:
        """``mAP``, ``top1``, ``top5`` and ``top10`` in percent."""
        result = {"mAP": 100 * float(self.ap[self.scored].mean())}
        for k in TOP_K:
            result[f"top{k}"] = 100 * float(self.hits(k)[self.scored].mean())
        return result


def score_search(
    detections: Detections,
    protocol: SearchProtocol,
    *,
    score_thresh: float = 0.5,
    weighted: bool = False,
    top: int = 10,
) -> SearchResult:
    """Search each query of a protocol in its gallery and score the ranking.

    The rules are SeqNet's. The detections of all gallery images are ranked together by similarity
    to the query. In each image with the person, the most similar of the detections that overlap
    the person enough (``metrics.iou_threshold``) is the true positive and everything else is
    wrong. An image listed twice in a gallery is ranked once, with the box of its first listing,
    while both listings count as truths. The query's own image takes part where its gallery lists
    it.

    Args:
        detections: what the model found; ``query_emb`` in the order of ``protocol.queries``.
        protocol: queries, galleries and truths.
        score_thresh: detections below take no part.
        weighted: multiply similarities by the detection's score (NAE's and SeqNet's confidence
            weighting).
        top: length of the ranked lists to keep.

    Returns:
        The result per query, with the means in ``metrics()``. Similarities are summed in float64
        and rounded to float32. Equal ones are one step in the average precision; in ranks and lists
        they come in protocol order of the images, then in the order of an image's detections.

    Raises:
        KdpsError: detections and protocol do not belong together, or no query has a truth.
    """
    check_same_protocol(detections, protocol)
    kept = np.flatnonzero(detections.det[:, 4] >= score_thresh)
    images = detections.image_of_det[kept]
    offsets = offsets_of(np.bincount(images, minlength=len(detections.names)))
    embeddings = detections.emb[kept]
    if weighted:
        embeddings = (embeddings * detections.det[kept, 4:5]).astype(np.float32)
    # In float32 the same two vectors get other last digits in other places of a product, and with
    # another library or size of block. Summed in float64 and rounded they get the same.
    embeddings = embeddings.astype(np.float64)
    queries = detections.query_emb.astype(np.float64)
    matches = match_truths(protocol, detections.det[kept, :4], offsets)
    if not matches.num_truths.any():
        raise KdpsError(f"{protocol.name}: no query has the person it looks for in its gallery")

    lists = _RankedLists.empty(len(protocol.queries), top)
    ap = np.full(len(protocol.queries), np.nan)
    ranks = []
    for start in range(0, len(protocol.queries), _QUERIES_PER_BLOCK):
        block = (queries[start : start + _QUERIES_PER_BLOCK] @ embeddings.T).astype(np.float32)
        for query, row in enumerate(block, start):
            candidates = _gallery_rows(protocol.galleries[query], offsets)
            similarity = row[candidates]
            on_person, positives = _positives(matches, query, row)
            places = np.searchsorted(candidates, positives)
            ranks.append(np.sort(ranks_of(similarity, places)))
            if matches.num_truths[query]:
                ap[query] = average_precision(
                    similarity, similarity[places], int(matches.num_truths[query])
                )
            best = candidates[top_ranked(similarity, top)]
            lists.put(query, kept[best], row[best], best, on_person, positives)
    return SearchResult(
        name=protocol.name,
        ap=ap,
        num_truths=matches.num_truths,
        ranks=tuple(ranks),
        top=lists.top,
        similarity=lists.similarity,
        on_person=lists.on_person,
        counted=lists.counted,
    )


def _gallery_rows(gallery: Gallery, offsets: np.ndarray) -> np.ndarray:
    """Ascending rows of the detections in a gallery's images, each image once."""
    if gallery.images is None:
        inside = np.ones(offsets[-1], dtype=bool)
        for image in gallery.excluded:
            inside[offsets[image] : offsets[image + 1]] = False
        return np.flatnonzero(inside)
    images = np.unique(gallery.images)
    return expand(offsets[images], offsets[images + 1] - offsets[images])


def _positives(matches: Matches, query: int, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the detections on the person, and of the true positive in each image, ascending."""
    pairs = slice(matches.offsets[query], matches.offsets[query + 1])
    on_person = matches.detection[pairs]
    best = argmax_per_group(matches.truth[pairs], row[on_person])
    return on_person, np.sort(on_person[best])


@dataclass(frozen=True)
class _RankedLists:
    top: np.ndarray
    similarity: np.ndarray
    on_person: np.ndarray
    counted: np.ndarray

    @classmethod
    def empty(cls, num_queries: int, length: int) -> _RankedLists:
        shape = (num_queries, length)
        return cls(
            np.full(shape, -1, dtype=np.int64),
            np.zeros(shape, dtype=np.float32),
            np.zeros(shape, dtype=bool),
            np.zeros(shape, dtype=bool),
        )

    def put(
        self,
        query: int,
        detection: np.ndarray,
        similarity: np.ndarray,
        rows: np.ndarray,
        on_person: np.ndarray,
        positives: np.ndarray,
    ) -> None:
        place = (query, slice(len(rows)))
        self.top[place] = detection
        self.similarity[place] = similarity
        self.on_person[place] = np.isin(rows, on_person)
        self.counted[place] = np.isin(rows, positives)
