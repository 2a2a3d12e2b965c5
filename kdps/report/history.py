# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The course of a training run, from its ``metrics.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

Curve = list[tuple[int, float]]


@dataclass(frozen=True)
class TrainingHistory:
    """Curves of (iteration, value), in the order of iterations.

    Attributes:
        losses: by name (``total_loss``, ``loss_oim``, ...), as logged.
        search_map: mAP in percent of the evaluations during training.
    """

    losses: dict[str, Curve] = field(default_factory=dict)
    search_map: Curve = field(default_factory=list)


def read_history(path: Path, dataset_name: str) -> TrainingHistory | None:
    """Read Detectron2's ``metrics.json`` (one JSON object per line).

    Args:
        path: the file.
        dataset_name: the test set whose mAP is wanted, where a run evaluated several.

    Returns:
        None if there is no such file or it holds no loss. A line that a killed run left
        half-written is passed over.
    """
    if not path.is_file():
        return None
    history = TrainingHistory()
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        iteration = record.get("iteration")
        if iteration is None:
            continue
        for name, value in record.items():
            if name == "total_loss" or name.startswith("loss_"):
                history.losses.setdefault(name, []).append((iteration, value))
            elif name in ("person_search/mAP", f"{dataset_name}/person_search/mAP"):
                history.search_map.append((iteration, value))
    return history if history.losses else None
