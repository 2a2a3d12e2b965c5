# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The page about an evaluation, as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdps.evaluation.cameras import CameraPairs
from kdps.evaluation.errors import ErrorSplit
from kdps.report import evaluation_charts as charts
from kdps.report.analyses import error_sentences
from kdps.report.curves import RECALL_LEVELS, mean_precision
from kdps.report.evaluation_content import EvaluationContent, SearchRow, label_of
from kdps.report.rendering import MAX_BYTES, render_capped, svg_uri

# Darkest shade of a cell; dark text stays readable on it.
_MAX_SHADE = 0.4
# Shades run over the mAP of a table, or over this much of it, so that small differences look small.
_MIN_RANGE = 0.1


def render_evaluation(content: EvaluationContent, max_bytes: int = MAX_BYTES) -> str:
    """Render the page within a size.

    Args:
        content: what to tell.
        max_bytes: largest size of the page in UTF-8; see ``render_capped``.

    Returns:
        HTML without scripts, links or any reference to another file.
    """
    drawn = choose_lines(content.rows)
    errors = {label_of(key): split for key, split in content.analyses.errors.items()}
    return render_capped(
        "evaluation.html.j2",
        content.shown,
        max_bytes,
        content=content,
        charts=_curves(content, drawn),
        num_not_drawn=len(content.rows) - len(drawn),
        error_charts=[_error_chart(errors)] if errors else [],
        errors={label: error_sentences(split) for label, split in errors.items()},
        cameras={
            label_of(key): _camera_table(pairs)
            for key, pairs in content.analyses.camera_pairs.items()
        },
    )


def choose_lines(rows: Sequence[SearchRow]) -> list[SearchRow]:
    """The searches that are drawn as lines: all, or some spread over those among the detections."""
    if len(rows) <= charts.MAX_LINES:
        return list(rows)
    own = [row for row in rows if not row.annotated]
    places = np.linspace(0, len(own) - 1, min(len(own), charts.MAX_LINES))
    return [own[place] for place in places.round().astype(int)]


def size_lines(rows: Sequence[SearchRow]) -> list[charts.SizeLine]:
    """mAP over the gallery size, of detections and of annotated boxes; none below two sizes."""
    lines = []
    for label, annotated in (("detections", False), ("annotated boxes", True)):
        ascending = sorted((r for r in rows if r.annotated == annotated), key=lambda row: row.size)
        if len({row.size for row in ascending}) < 2:
            continue
        ends = [row.interval or {} for row in ascending]
        lines.append(
            charts.SizeLine(
                label=label,
                sizes=np.array([row.size for row in ascending]),
                mean_ap=np.array([row.metrics["mAP"] for row in ascending]),
                lower=np.array([end.get("mAP_lower", np.nan) for end in ends]),
                upper=np.array([end.get("mAP_upper", np.nan) for end in ends]),
            )
        )
    return lines


def _curves(content: EvaluationContent, drawn: Sequence[SearchRow]) -> list[dict[str, str]]:
    """Title, SVG and text alternative of each chart."""
    results = {row.label: row.result for row in drawn}
    cmc = {label: 100 * result.cmc(10) for label, result in results.items()}
    found = [
        _chart(
            "How soon the person is found (CMC)",
            charts.cmc_chart(results),
            "Share of queries found by rank 1 and by rank 10: "
            + "; ".join(f"{name} {c[0]:.0f} % and {c[-1]:.0f} %" for name, c in cmc.items()),
        )
    ]
    sizes = size_lines(content.rows)
    if sizes:
        found.append(
            _chart(
                "mAP against gallery size, with 95 % intervals",
                charts.size_chart(sizes),
                "mAP by gallery images: "
                + "; ".join(
                    f"{line.label} "
                    + ", ".join(
                        f"{value:.1f} in {size:,}"
                        for size, value in zip(line.sizes, line.mean_ap, strict=True)
                    )
                    for line in sizes
                ),
            )
        )
    half = int(np.flatnonzero(RECALL_LEVELS == 50)[0])
    precision = {label: 100 * mean_precision(result)[half] for label, result in results.items()}
    detection = content.evaluation.detection
    return [
        *found,
        _chart(
            "Precision and recall of the search",
            charts.precision_chart(results),
            "Mean interpolated precision at a recall of 50 %: "
            + "; ".join(f"{name} {value:.0f} %" for name, value in precision.items()),
        ),
        _chart(
            "Precision and recall of the detector",
            charts.detection_chart(detection),
            f"At its last detection the recall is {100 * detection.recall:.0f} %; the average "
            f"precision is {100 * detection.ap:.0f} %",
        ),
    ]


def _error_chart(errors: Mapping[str, ErrorSplit]) -> dict[str, str]:
    return _chart(
        "mAP if one kind of error were mended",
        charts.error_chart(errors),
        "Bars of the mAP of each search as it is and without each kind of error; the numbers are "
        "in the text beside",
    )


def _chart(title: str, svg: str, alt: str) -> dict[str, str]:
    return {"title": title, "uri": svg_uri(svg), "alt": alt}


def _camera_table(pairs: CameraPairs) -> dict[str, Any]:
    """Cameras, and per query camera a cell for each gallery camera; None where none is scored."""
    highest = np.nanmax(pairs.mean_ap)
    span = max(highest - np.nanmin(pairs.mean_ap), _MIN_RANGE)
    shades = _MAX_SHADE * (1 - (highest - pairs.mean_ap) / span)
    rows = []
    for row, camera in enumerate(pairs.cameras.tolist()):
        cells = [
            None
            if pairs.num_queries[row, column] == 0
            else {
                "mean_ap": 100 * pairs.mean_ap[row, column],
                "top1": 100 * pairs.top1[row, column],
                "queries": int(pairs.num_queries[row, column]),
                "shade": f"{shades[row, column]:.3f}",
            }
            for column in range(len(pairs.cameras))
        ]
        rows.append((camera, cells))
    return {"cameras": pairs.cameras.tolist(), "rows": rows}
