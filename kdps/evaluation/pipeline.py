# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""One search from detections to its result, with all that the settings ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdps.data.protocol import SearchProtocol
from kdps.data.variants import cross_camera, multi_view, strict
from kdps.evaluation.context_matching import ContextMatching
from kdps.evaluation.entries import Repeats
from kdps.evaluation.query_by_iou import embed_queries_by_iou
from kdps.evaluation.query_expansion import expand_queries
from kdps.evaluation.query_persons import with_query_persons
from kdps.evaluation.reranking import KReciprocalReranking
from kdps.evaluation.search import Refiner, SearchResult, score_search
from kdps.evaluation.settings import SearchSettings
from kdps.structures.detections import Detections

# The gallery of each query is the whole set.
FULL_SET = "all"


@dataclass(frozen=True)
class Search:
    """A search that was done.

    Attributes:
        result: its numbers.
        protocol: what was searched, as the settings changed it.
        detections: what was searched among, as the settings changed it.
        repeats: how repeated images counted.
    """

    result: SearchResult
    protocol: SearchProtocol
    detections: Detections
    repeats: Repeats


def run_search(
    detections: Detections,
    records: Sequence[Mapping[str, Any]],
    protocol: SearchProtocol,
    settings: SearchSettings,
    *,
    gallery: int | str | None = None,
    top: int = 10,
) -> Search:
    """Search as the settings say.

    Args:
        detections: what a model found.
        records: the test records, in the order of ``detections.names``.
        protocol: queries and galleries as the data set has them.
        settings: how to search.
        gallery: which of the set's galleries this is; ``FULL_SET`` counts copies with "compat".
        top: length of the ranked lists.

    Raises:
        KdpsError: the arguments do not belong together, or the settings do not fit the set.
    """
    if settings.cameras == "cross":
        protocol = cross_camera(protocol)
    elif settings.cameras == "multi_view":
        protocol = multi_view(protocol)
    repeats: Repeats = "copies" if gallery == FULL_SET else "first"
    if settings.protocol == "strict":
        protocol, repeats = strict(protocol, records), "each"
    elif settings.protocol == "copies":
        repeats = "copies"
    if settings.query_mode == "best_iou":
        detections = embed_queries_by_iou(detections, protocol)

    def search(detections: Detections, top: int, refine: Refiner | None) -> SearchResult:
        return score_search(
            detections,
            protocol,
            score_thresh=settings.score_thresh,
            weighted=settings.weighted,
            repeats=repeats,
            refine=refine,
            top=top,
            device=settings.device,
        )

    if settings.query_expansion:
        first = search(detections, settings.query_expansion, None)
        detections = expand_queries(detections, first, settings.query_expansion)
    refine: Refiner | None = None
    if settings.cbgm:
        detections = with_query_persons(detections, protocol)
        refine = ContextMatching(
            detections,
            k1=settings.cbgm_k1,
            k2=settings.cbgm_k2,
            weighted=settings.weighted,
        )
    elif settings.rerank:
        refine = KReciprocalReranking(detections, weighted=settings.weighted)
    return Search(search(detections, top, refine), protocol, detections, repeats)
