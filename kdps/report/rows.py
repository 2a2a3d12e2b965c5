# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The rows of the report's table: a model and its yardsticks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from kdps.evaluation.bootstrap import BootstrapInterval, map_interval
from kdps.evaluation.search import SearchResult

# Key of ``kdps.evaluation.baselines.compare_with_baselines`` -> label, what the row tells.
_MEANING = {
    "model": ("Trained model", "its own detections and embeddings"),
    "random": ("Random embeddings", "same detections in random order: pure chance"),
    "histogram": ("Colour histogram", "same detections, compared by their colours alone"),
    "gt_boxes": ("Model in annotated boxes", "same network, given perfect detections"),
}


@dataclass(frozen=True)
class Row:
    """One way to search, scored.

    Attributes:
        key: short name, as in ``compare_with_baselines``.
        result: its search result.
        interval: mAP in percent, with its 95 % bootstrap interval over the queries.
    """

    key: str
    result: SearchResult
    interval: BootstrapInterval

    @property
    def label(self) -> str:
        return _MEANING[self.key][0]

    @property
    def note(self) -> str:
        return _MEANING[self.key][1]

    @property
    def metrics(self) -> dict[str, float]:
        """``mAP``, ``top1``, ``top5`` and ``top10`` in percent."""
        return self.result.metrics()

    def as_dict(self) -> dict[str, Any]:
        """JSON values; everything in percent."""
        return {
            "row": self.key,
            "label": self.label,
            **self.metrics,
            "mAP_lower": self.interval.lower,
            "mAP_upper": self.interval.upper,
        }


def make_rows(results: Mapping[str, SearchResult], seed: int) -> list[Row]:
    """The rows in the order of the table.

    Args:
        results: as ``compare_with_baselines`` returns them; ``gt_boxes`` may be absent.
        seed: of the bootstrap.
    """
    return [
        Row(key, results[key], map_interval(results[key], seed=seed))
        for key in _MEANING
        if key in results
    ]


def format_rows(rows: Sequence[Row]) -> str:
    """The table for the console."""
    body = []
    for row in rows:
        metrics = row.metrics
        interval = f"{row.interval.lower:.1f} to {row.interval.upper:.1f}"
        top = [metrics[name] for name in ("top1", "top5", "top10")]
        body.append([row.label, metrics["mAP"], interval, *top])
    headers = ["", "mAP", "95 % interval", "top-1", "top-5", "top-10"]
    return tabulate(body, headers=headers, floatfmt=".1f", disable_numparse=[0, 2])


def format_difference(difference: BootstrapInterval) -> str:
    """Where the model stands beside the colour histogram, in one clause."""
    side = "above" if difference.mean >= 0 else "below"
    sign = 1 if difference.mean >= 0 else -1
    ends = sorted((sign * difference.lower, sign * difference.upper))
    return (
        f"{abs(difference.mean):.1f} points of mAP {side} the colour histogram "
        f"(paired, 95 % interval {ends[0]:.1f} to {ends[1]:.1f})"
    )
