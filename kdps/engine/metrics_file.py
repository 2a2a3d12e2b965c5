# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""metrics.json: its history when a run starts again in the same folder, and what it tells."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from statistics import mean

from kdps.checkpoint.files import atomic_write

logger = logging.getLogger(__name__)


def training_time(path: str | Path) -> tuple[int, float]:
    """Iterations of a training and the seconds that they took, interruptions not counted."""
    records = [json.loads(line) for line in Path(path).read_text().splitlines()]
    timed = [record for record in records if "time" in record]
    iterations = 1 + max(record["iteration"] for record in timed)
    return iterations, iterations * mean(record["time"] for record in timed)


def prepare_metrics_file(path: str | Path, start_iter: int) -> None:
    """Make ``metrics.json`` hold the iterations before ``start_iter`` and nothing else.

    A killed run leaves records behind its last checkpoint, perhaps half a line; a resumed run
    writes them again. A new run in a used folder sets the old file aside as ``metrics.json.old``.
    """
    path = Path(path)
    if not path.is_file():
        return
    if start_iter == 0:
        path.replace(path.with_name(path.name + ".old"))
        logger.info("Set the metrics of a former run aside as %s.old", path)
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record.get("iteration", -1) < start_iter:
            kept.append(line)
    with atomic_write(path, "w") as stream:
        stream.writelines(kept)
