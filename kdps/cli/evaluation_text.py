# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What ``kdps evaluate`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tabulate import tabulate

from kdps.evaluation.cameras import CameraPairs
from kdps.evaluation.evaluation import Evaluation
from kdps.report.analyses import Analyses, error_sentences


def table_text(evaluation: Evaluation, content: Mapping[str, Any]) -> str:
    """The table of searches, the boxes' numbers and the settings.

    Args:
        evaluation: what was measured.
        content: ``evaluation.as_dict()``.
    """
    rows = []
    for key, interval in content["intervals"].items():
        metrics, counts = content[key], content["counts"][key]
        span = (
            ""
            if interval is None
            else f"{interval['mAP_lower']:.1f} to {interval['mAP_upper']:.1f}"
        )
        top = [metrics[name] for name in ("top1", "top5", "top10")]
        rows.append([key, metrics["mAP"], span, *top, counts["queries"]])
    headers = ["", "mAP", "95 % interval", "top-1", "top-5", "top-10", "queries"]
    lines = [tabulate(rows, headers=headers, floatfmt=".2f", disable_numparse=[0, 2]), ""]
    detection = content["detection"]
    lines.append(f"Detection: recall {detection['recall']:.2f} %, AP {detection['AP']:.2f} %")
    settings = {name: value for name, value in evaluation.settings.items() if value != []}
    lines.append("Settings: " + ", ".join(_text(k, v) for k, v in settings.items()))
    for key, counts in content["counts"].items():
        for what, why in (
            ("left_out", "left out: the person is nowhere in their gallery"),
            ("not_embedded", "found nothing: they have no embedding"),
        ):
            if counts[what]:
                lines.append(f"{key}: {counts[what]} queries {why}")
    return "\n".join(lines) + "\n"


def analyses_text(analyses: Analyses) -> str:
    """Errors of each search in sentences, and its best and worst pair of cameras."""
    lines = [f"Errors and camera pairs: {analyses.note}"] if analyses.note else []
    for key, split in analyses.errors.items():
        lines.append(f"{key}: " + "\n  ".join(error_sentences(split)))
    for key, pairs in analyses.camera_pairs.items():
        lines.append(f"{key}: {_camera_text(pairs)}")
    return "\n".join(["", *lines]) + "\n" if lines else ""


def _camera_text(pairs: CameraPairs) -> str:
    shown = []
    for name, place in (("lowest", np.nanargmin), ("highest", np.nanargmax)):
        row, column = np.unravel_index(place(pairs.mean_ap), pairs.mean_ap.shape)
        shown.append(
            f"{name} {100 * pairs.mean_ap[row, column]:.1f} for queries of camera "
            f"{pairs.cameras[row]} in camera {pairs.cameras[column]}"
        )
    return f"mAP by camera pairs: {', '.join(shown)}"


def _text(name: str, value: Any) -> str:
    shown = ", ".join(map(str, value)) if isinstance(value, list) else value
    return f"{name} {shown}"
