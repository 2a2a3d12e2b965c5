# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Person-search accuracy of a set of detections under a search protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kdps.data.protocol import Gallery, SearchProtocol
from kdps.errors import KdpsError
from kdps.evaluation.detections_file import check_detections
from kdps.evaluation.entries import Repeats, gallery_entries
from kdps.evaluation.ranking import rank_candidates
from kdps.evaluation.similarity import similarities
from kdps.evaluation.truths import match_truths
from kdps.structures.detections import Detections, check_same_protocol
from kdps.structures.ragged import expand, offsets_of

TOP_K = (1, 5, 10)


class Refiner(Protocol):
    """Changes the similarities of one query after they were computed, as CBGM does."""

    def __call__(self, query: int, rows: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        """
        Args:
            query: index in the protocol.
            rows: (L,) rows of ``Detections.det`` in the query's gallery, image after image.
            similarity: (L,) float32, to be left as it is.

        Returns:
            (L,) float32, finite.
        """


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
    repeats: Repeats = "first",
    refine: Refiner | None = None,
    top: int = 10,
    device: str = "cpu",
) -> SearchResult:
    """Search each query of a protocol in its gallery and score the ranking.

    The detections of all gallery images are ranked together by similarity to the query. In each
    image with the person, the most similar of the detections that overlap the person enough
    (``metrics.iou_threshold``) is the true positive and everything else is wrong. By default the
    rules are SeqNet's: an image listed twice in a gallery is ranked once, with the box of its first
    listing, while both listings count as truths. The query's own image takes part where its gallery
    lists it.

    Args:
        detections: what the model found; ``query_emb`` in the order of ``protocol.queries``.
        protocol: queries, galleries and truths.
        score_thresh: detections below take no part.
        weighted: multiply similarities by the detection's score (NAE's and SeqNet's confidence
            weighting).
        repeats: how an image counts that is listed twice or holds several truths; see ``Repeats``.
        refine: changes the similarities of a query after they were computed.
        top: length of the ranked lists to keep.
        device: where the similarities are computed, as PyTorch names it; changes no number.

    Returns:
        The result per query, with the means in ``metrics()``. Similarities are summed in float64
        and rounded to float32. Equal ones are one step in the average precision; in ranks and lists
        they come in protocol order of the images, then in the order of an image's detections.

    Raises:
        KdpsError: detections and protocol do not belong together, or no query has a truth.
    """
    check_detections(detections, protocol.name)
    check_same_protocol(detections, protocol)
    if not protocol.queries:
        raise KdpsError(f"{protocol.name}: it has no queries")
    kept = np.flatnonzero(detections.det[:, 4] >= score_thresh)
    offsets = offsets_of(np.bincount(detections.image_of_det[kept], minlength=len(protocol.images)))
    embeddings = detections.emb[kept]
    if weighted:
        embeddings = (embeddings * detections.det[kept, 4:5]).astype(np.float32)
    entries = gallery_entries(protocol, offsets, repeats)
    matches = match_truths(protocol, entries, detections.det[kept, :4], offsets)
    if not matches.num_truths.any():
        raise KdpsError(f"{protocol.name}: no query has the person it looks for in its gallery")

    shape = (len(protocol.queries), top)
    best, best_similarity = np.full(shape, -1), np.zeros(shape, np.float32)
    ap = np.full(len(protocol.queries), np.nan)
    ranks, positives_of = [], []
    embedded = detections.query_emb.any(axis=1)
    rows_of = similarities(detections.query_emb, embeddings, entries, offsets, device)
    for query, similarity in enumerate(rows_of):
        _leave_out(similarity, protocol.galleries[query], offsets)
        if len(matches.ignored):
            similarity[matches.ignored_by(query)] = -np.inf
        if not embedded[query]:
            similarity[:] = -np.inf
        if refine is not None:
            part = np.flatnonzero(similarity > -np.inf)
            candidates = kept[entries.rows(query, offsets)[part]]
            similarity[part] = refine(query, candidates, similarity[part])
        positives = matches.positives(query, similarity)
        positives = positives[similarity[positives] > -np.inf]
        positives_of.append(positives)
        ranking = rank_candidates(similarity, positives, top)
        ranks.append(np.sort(ranking.ranks))
        if matches.num_truths[query]:
            ap[query] = ranking.precision.sum() / matches.num_truths[query]
        place = (query, slice(len(ranking.best)))
        best[place] = ranking.best
        best_similarity[place] = similarity[ranking.best]
    rows = entries.rows_at(best, offsets)
    num_positives = np.array([len(positives) for positives in positives_of], dtype=np.int64)
    return SearchResult(
        name=protocol.name,
        ap=ap,
        num_truths=matches.num_truths,
        ranks=tuple(ranks),
        top=np.where(rows >= 0, np.append(kept, -1)[rows], -1),
        similarity=best_similarity,
        on_person=_are_among(best, np.diff(matches.offsets), matches.column),
        counted=_are_among(best, num_positives, np.concatenate(positives_of)),
    )


def _leave_out(similarity: np.ndarray, gallery: Gallery, offsets: np.ndarray) -> None:
    """Take the detections of excluded images out of an open gallery."""
    if gallery.images is None:
        images = gallery.excluded
        similarity[expand(offsets[images], offsets[images + 1] - offsets[images])] = -np.inf


def _are_among(places: np.ndarray, counts: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which places of each query are among the other ones of that query.

    Args:
        places: (Q, K) among the candidates; -1 is among none.
        counts: (Q,) other places of each query.
        others: (sum of counts,) the other places, query after query.
    """
    size = max(places.max(initial=0), others.max(initial=0)) + 1
    query = np.arange(len(counts))
    keys = np.repeat(query, counts) * size + others
    return (places >= 0) & np.isin(query[:, None] * size + places, keys)
