# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Everything a report says, gathered from detections and a test set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from kdps.data.catalog import get_protocol
from kdps.evaluation.baselines import compare_with_baselines
from kdps.evaluation.bootstrap import BootstrapInterval, map_difference
from kdps.evaluation.detection import DetectionResult, score_detections
from kdps.report.facts import images_per_query, set_facts
from kdps.report.history import TrainingHistory
from kdps.report.rows import Row, format_difference, make_rows
from kdps.report.showcase import ShownQuery, choose_queries, image_files, show_query
from kdps.structures.detections import Detections


@dataclass(frozen=True)
class ReportSettings:
    """How the rows are computed.

    Attributes:
        score_thresh: detections below take no part in the search.
        weighted: weight similarities by detection scores.
        detection_score_thresh: detections below do not count in recall and AP.
        num_queries: queries to show.
        seed: of random embeddings, bootstrap and randomly shown queries.
    """

    score_thresh: float = 0.5
    weighted: bool = False
    detection_score_thresh: float = 0.01
    num_queries: int = 9
    seed: int = 0


@dataclass(frozen=True)
class ReportContent:
    """The numbers and pictures of a report.

    Attributes:
        dataset: name of the test set.
        note: what readers have to know about the set; may be empty.
        facts: size of the test, as label and number.
        rows: model and yardsticks.
        difference: model minus colour histogram, in mAP points.
        detection: detection quality of the model.
        shown: queries with their hits.
        history: the training run; None if unknown.
        settings: how it was computed, as label and text.
        config: the config of the evaluation as YAML; empty if there was none.
        training_config: that of the training, as it wrote it itself; empty if unknown.
    """

    dataset: str
    note: str
    facts: dict[str, int]
    rows: tuple[Row, ...]
    difference: BootstrapInterval
    detection: DetectionResult
    shown: tuple[ShownQuery, ...]
    history: TrainingHistory | None = None
    settings: dict[str, str] = field(default_factory=dict)
    config: str = ""
    training_config: str = ""

    def summary(self) -> str:
        """The report in a few sentences."""
        result = self.rows[0].result
        found = int(result.hits(1)[result.scored].sum())
        metrics, interval = self.rows[0].metrics, self.rows[0].interval
        text = (
            f"The best hit is the right person for {found} of {int(result.scored.sum())} queries "
            f"(top-1 {metrics['top1']:.1f} %). mAP is {metrics['mAP']:.1f} "
            f"(95 % interval {interval.lower:.1f} to {interval.upper:.1f}), "
            f"{format_difference(self.difference)}."
        )
        bound = next((row for row in self.rows if row.key == "gt_boxes"), None)
        if bound is not None:
            text += (
                f" With annotated boxes in place of its own it reaches {bound.metrics['mAP']:.1f}."
            )
        return text

    def as_dict(self) -> dict[str, Any]:
        """JSON values; all numbers in percent."""
        return {
            "dataset": self.dataset,
            "note": self.note,
            "facts": self.facts,
            "rows": [row.as_dict() for row in self.rows],
            "model_minus_histogram": {
                "mAP": self.difference.mean,
                "lower": self.difference.lower,
                "upper": self.difference.upper,
            },
            "detection": self.detection.metrics(),
            "settings": self.settings,
            "config": self.config,
            "training_config": self.training_config,
        }


def gather_content(
    detections: Detections,
    dataset_name: str,
    settings: ReportSettings,
    *,
    gallery_size: int | None = None,
    history: TrainingHistory | None = None,
    notes: Mapping[str, str] | None = None,
    config: str = "",
    training_config: str = "",
) -> ReportContent:
    """Score the detections beside the yardsticks and draw the queries.

    Args:
        detections: of the test set.
        dataset_name: its registered name.
        settings: how to compute.
        gallery_size: the protocol's; None for its default.
        history: the training run.
        notes: more settings to state (command, versions, machine).
        config: the config of the evaluation as YAML.
        training_config: that of the training.

    Raises:
        KdpsError: detections and set do not belong together, or an image cannot be read.
    """
    records = DatasetCatalog.get(dataset_name)
    protocol = get_protocol(dataset_name, gallery_size)
    results = compare_with_baselines(
        detections,
        records,
        protocol,
        score_thresh=settings.score_thresh,
        weighted=settings.weighted,
        seed=settings.seed,
    )
    model, files = results["model"], image_files(records)
    shown = [
        show_query(query, group, model, detections, protocol, files)
        for query, group in choose_queries(model, settings.num_queries, settings.seed)
    ]
    return ReportContent(
        dataset=protocol.name,
        note=MetadataCatalog.get(dataset_name).get("note", ""),
        facts={
            **set_facts(protocol, records),
            "gallery images per query (median)": images_per_query(protocol),
        },
        rows=tuple(make_rows(results, settings.seed)),
        difference=map_difference(model, results["histogram"], seed=settings.seed),
        detection=score_detections(
            detections, records, score_thresh=settings.detection_score_thresh
        ),
        shown=tuple(shown),
        history=history,
        settings={
            "detections searched": f"score of {settings.score_thresh:g} or more",
            "similarity": "cosine x detection score" if settings.weighted else "cosine",
            "detections in recall and AP": f"score of {settings.detection_score_thresh:g} or more",
            "seed of the report": str(settings.seed),
            **(notes or {}),
        },
        config=config,
        training_config=training_config,
    )
