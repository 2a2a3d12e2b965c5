# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""All numbers of one set of detections on one test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdps.data.protocol import GalleryName, SearchProtocol
from kdps.errors import KdpsError
from kdps.evaluation.annotated import annotated_as_detections
from kdps.evaluation.bootstrap import map_interval
from kdps.evaluation.detection import DetectionResult, score_detections
from kdps.evaluation.pipeline import Search, run_search
from kdps.evaluation.query_subset import select_queries
from kdps.evaluation.results_file import describe_queries
from kdps.evaluation.settings import QUERY_MODES, SearchSettings
from kdps.structures.detections import Detections
from kdps.utils.environment import versions

SEARCH_METRICS = ("mAP", "top1", "top5", "top10")
DETECTION_METRICS = ("recall", "AP")
GT_BOXES = "_gt_boxes"
# Key of a search that is the only one.
DEFAULT_KEY = "person_search"


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        dataset: name of the test set.
        searches: by key, such as "person_search_g100".
        detection: quality of the boxes.
        settings: how it was measured, as JSON values.
        meta: what the detections' writer said about them.
    """

    dataset: str
    searches: dict[str, Search]
    detection: DetectionResult
    settings: dict[str, Any]
    meta: dict[str, Any]

    def metrics(self) -> dict[str, dict[str, float]]:
        """Percent by task: ``SEARCH_METRICS`` of each search, ``DETECTION_METRICS`` of the boxes.

        A search that was the only one is there as "person_search" and, if its gallery has a name,
        under that as well.
        """
        found = {key: search.result.metrics() for key, search in self.searches.items()}
        return {**found, "detection": self.detection.metrics()}

    def distinct_searches(self) -> dict[str, Search]:
        """The searches; of several keys of the same one the first."""
        first: dict[int, str] = {}
        for key, search in self.searches.items():
            first.setdefault(id(search), key)
        return {key: self.searches[key] for key in first.values()}

    def as_dict(self, *, seed: int = 0) -> dict[str, Any]:
        """JSON values: the metrics and, beside them, how they were measured and each query.

        Args:
            seed: of the bootstrap.
        """
        distinct = self.distinct_searches()
        return {
            "dataset": self.dataset,
            **self.metrics(),
            "intervals": {key: _interval(search, seed) for key, search in distinct.items()},
            "counts": {key: _counts(search) for key, search in distinct.items()},
            "settings": self.settings,
            "detections": self.meta,
            "versions": versions(),
            "queries": {
                key: describe_queries(search.result, search.protocol, search.detections)
                for key, search in distinct.items()
            },
        }


def reported_metrics(
    galleries: Sequence[GalleryName] = (), *, annotated: bool = False
) -> list[str]:
    """What :func:`evaluate_detections` reports, as ``task/metric``.

    Args:
        galleries: the galleries asked for; empty for the default one.
        annotated: whether annotated boxes are searched as well.
    """
    keys = [key for gallery in galleries or (None,) for key in _keys(gallery, len(galleries))]
    keys += [key + GT_BOXES for key in keys if annotated]
    names = [f"{key}/{metric}" for key in keys for metric in SEARCH_METRICS]
    return names + [f"detection/{metric}" for metric in DETECTION_METRICS]


def evaluate_detections(
    detections: Detections,
    records: Sequence[Mapping[str, Any]],
    protocols: Mapping[GalleryName, SearchProtocol],
    settings: SearchSettings | None = None,
    *,
    queries_of: SearchProtocol | None = None,
    dataset: str = "",
    gt_boxes: bool = False,
    detection_score_thresh: float = 0.01,
    top: int = 10,
) -> Evaluation:
    """Search in each gallery and score the boxes.

    Args:
        detections: what a model found.
        records: the test records, in the order of ``detections.names``.
        protocols: gallery name -> its protocol; None names the only one of the set.
        settings: how to search.
        queries_of: the protocol whose queries the detections hold, if others have fewer; the first
            of ``protocols`` by default.
        dataset: name of the test set.
        gt_boxes: search the annotated boxes as well, under keys that end in ``GT_BOXES``.
        detection_score_thresh: detections below do not count in recall and AP.
        top: length of the ranked lists.

    Raises:
        KdpsError: the arguments do not belong together, or ``gt_boxes`` are wanted of detections
            without their embeddings.
    """
    settings = settings or SearchSettings()
    if not protocols:
        raise KdpsError("no gallery was named to search in")
    whole = queries_of or next(iter(protocols.values()))
    variants = {"": detections}
    if gt_boxes:
        variants[GT_BOXES] = annotated_as_detections(detections, records)
    searches = {}
    for suffix, found in variants.items():
        for gallery, protocol in protocols.items():
            queried = select_queries(found, whole, protocol)
            search = run_search(queried, records, protocol, settings, gallery=gallery, top=top)
            for key in _keys(gallery, len(protocols)):
                searches[key + suffix] = search
    return Evaluation(
        dataset=dataset,
        searches=searches,
        detection=score_detections(detections, records, score_thresh=detection_score_thresh),
        settings={
            **settings.as_dict(),
            "query_mode": _query_mode(detections, settings),
            "galleries": [gallery for gallery in protocols if gallery is not None],
            "detection_score_thresh": detection_score_thresh,
        },
        meta=dict(detections.meta),
    )


def _query_mode(detections: Detections, settings: SearchSettings) -> str:
    """Where the query embeddings come from, which the detections' writer may have decided."""
    written = detections.meta.get("query_mode")
    return written if written in QUERY_MODES[1:] else settings.query_mode


def _keys(gallery: GalleryName, count: int) -> list[str]:
    """Keys under which one of ``count`` galleries is reported."""
    own = [] if gallery is None else [gallery_key(gallery)]
    return own if count > 1 else [DEFAULT_KEY, *own]


def gallery_key(gallery: int | str) -> str:
    """Key of the search in a gallery, such as "person_search_g100"."""
    prefix = "g" if isinstance(gallery, int) else ""
    return f"{DEFAULT_KEY}_{prefix}{gallery}"


def _interval(search: Search, seed: int) -> dict[str, float] | None:
    if search.result.scored.sum() < 2:
        return None
    interval = map_interval(search.result, seed=seed)
    return {"mAP_lower": interval.lower, "mAP_upper": interval.upper}


def _counts(search: Search) -> dict[str, int]:
    """Queries that were scored, left out for want of a truth, and not embedded by the model."""
    scored = search.result.scored
    embedded = search.detections.query_emb.any(axis=1)
    return {
        "queries": int(scored.sum()),
        "left_out": int((~scored).sum()),
        "not_embedded": int((scored & ~embedded).sum()),
        "truths": int(search.result.num_truths.sum()),
        "found": sum(len(ranks) for ranks in search.result.ranks),
    }
