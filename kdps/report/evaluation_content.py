# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Everything that the page about an evaluation says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from kdps.errors import KdpsError
from kdps.evaluation.evaluation import GT_BOXES, Evaluation
from kdps.evaluation.pipeline import FULL_SET, Search
from kdps.evaluation.search import SearchResult
from kdps.report.analyses import Analyses
from kdps.report.facts import images_per_query, set_facts
from kdps.report.showcase import ShownQuery, choose_queries, image_files, show_query

# Hits of a query that are shown; longer lists are in the JSON file.
_MAX_HITS = 10
_SEARCH = "person_search"


@dataclass(frozen=True)
class SearchRow:
    """One search, as a row of the table.

    Attributes:
        key: as in the JSON file.
        label: what was searched, in a few words.
        size: images that a query is searched in; the median.
        annotated: whether annotated boxes were searched.
        result: per query.
        metrics: ``mAP``, ``top1``, ``top5`` and ``top10`` in percent.
        interval: ``mAP_lower`` and ``mAP_upper``; None with a single query.
        counts: queries, truths and what was found of them, as in the JSON file.
    """

    key: str
    label: str
    size: int
    annotated: bool
    result: SearchResult
    metrics: Mapping[str, float]
    interval: Mapping[str, float] | None
    counts: Mapping[str, int]


@dataclass(frozen=True)
class EvaluationContent:
    """The numbers and pictures of the page.

    Attributes:
        evaluation: what was measured.
        set_note: what readers have to know about the set; may be empty.
        facts: size of the test, as label and number.
        rows: the searches.
        analyses: where they lose accuracy.
        shown: queries of the first search with their hits.
        pictures_note: why there are none; empty if there are.
        origin: command, versions, files: label and text.
    """

    evaluation: Evaluation
    set_note: str
    facts: Mapping[str, int]
    rows: tuple[SearchRow, ...]
    analyses: Analyses
    shown: tuple[ShownQuery, ...] = ()
    pictures_note: str = ""
    origin: Mapping[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """The evaluation in two sentences, about its first search."""
        row, detection = self.rows[0], self.evaluation.detection.metrics()
        span = row.interval and (
            f" (95 % interval {row.interval['mAP_lower']:.1f} to {row.interval['mAP_upper']:.1f})"
        )
        where = f" in {row.size:,} images per query" if len(self.rows) > 1 else ""
        return (
            f"mAP is {row.metrics['mAP']:.1f}{span or ''} and top-1 {row.metrics['top1']:.1f} %"
            f"{where}, over {row.counts['queries']:,} queries. The detections match "
            f"{detection['recall']:.1f} % of the annotated persons (AP {detection['AP']:.1f} %)."
        )

    def settings(self) -> dict[str, str]:
        """How it was measured, as label and text."""
        return _as_text(self.evaluation.settings)

    def meta(self) -> dict[str, str]:
        """What the writer of the detections said about them, as label and text."""
        return _as_text(self.evaluation.meta)


def gather_evaluation(
    evaluation: Evaluation,
    numbers: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    analyses: Analyses,
    *,
    num_queries: int = 9,
    seed: int = 0,
    origin: Mapping[str, str] | None = None,
) -> EvaluationContent:
    """Put together what was measured, and draw some queries of the first search.

    Args:
        evaluation: what was measured.
        numbers: ``evaluation.as_dict()``.
        records: the test records, in the order of the detections.
        analyses: of the evaluation.
        num_queries: queries to show.
        seed: of randomly shown ones.
        origin: command, versions, files: label and text.
    """
    searches = evaluation.distinct_searches()
    rows = tuple(_row(key, search, numbers) for key, search in searches.items())
    first = next(iter(searches.values()))
    shown, pictures_note = _show(first, records, num_queries, seed)
    known = evaluation.dataset in DatasetCatalog
    return EvaluationContent(
        evaluation=evaluation,
        set_note=MetadataCatalog.get(evaluation.dataset).get("note", "") if known else "",
        facts=set_facts(first.protocol, records),
        rows=rows,
        analyses=analyses,
        shown=shown,
        pictures_note=pictures_note,
        origin=dict(origin or {}),
    )


def label_of(key: str) -> str:
    """What the search under a key is called."""
    annotated = key.endswith(GT_BOXES)
    name = key.removesuffix(GT_BOXES).removeprefix(_SEARCH).removeprefix("_")
    if not name:
        return "Annotated boxes" if annotated else "Detections"
    if name == FULL_SET:
        name = "whole set"
    elif name[0] == "g" and name[1:].isdigit():
        name = f"{int(name[1:]):,} images"
    return f"{name}, annotated boxes" if annotated else name


def _row(key: str, search: Search, numbers: Mapping[str, Any]) -> SearchRow:
    return SearchRow(
        key=key,
        label=label_of(key),
        size=images_per_query(search.protocol),
        annotated=key.endswith(GT_BOXES),
        result=search.result,
        metrics=numbers[key],
        interval=numbers["intervals"][key],
        counts=numbers["counts"][key],
    )


def _show(
    search: Search, records: Sequence[Mapping[str, Any]], num_queries: int, seed: int
) -> tuple[tuple[ShownQuery, ...], str]:
    """The queries to show, or none and why. Pictures are an addition, which numbers outlive."""
    result = replace(search.result, top=search.result.top[:, :_MAX_HITS])
    if not result.top.shape[1]:
        return (), "No pictures: no hits were kept (--top-k 0)."
    files = image_files(records)
    try:
        shown = tuple(
            show_query(query, group, result, search.detections, search.protocol, files)
            for query, group in choose_queries(result, num_queries, seed)
        )
    except KdpsError as error:
        return (), f"No pictures: {error}."
    return shown, ""


def _as_text(values: Mapping[str, Any]) -> dict[str, str]:
    return {name.replace("_", " "): _text(value) for name, value in values.items() if value != []}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)
