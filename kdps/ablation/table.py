# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The table of an ablation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from kdps.ablation.plan import Plan, Run
from kdps.ablation.runs import Job
from kdps.errors import KdpsError
from kdps.evaluation.bootstrap import BootstrapInterval
from kdps.evaluation.seeds import gap_share, nested_interval

_HEADS = ("", "mAP", "top-1", "minus {}", "share of the gap", "recall", "AP", "min", "seeds")


@dataclass(frozen=True)
class Row:
    """What one run reached; means over its seeds, in percent.

    Attributes:
        run: which.
        seeds: those that are done.
        scores: "mAP", "top1", "recall", "AP".
        difference: mAP minus that of the baseline with the same seeds; None for the baseline.
        share: of the gap between baseline and upper run that it closes; None for these two, and
            where they have no seed in common.
        minutes: of a training.
    """

    run: Run
    seeds: tuple[int, ...]
    scores: Mapping[str, float]
    difference: BootstrapInterval | None
    share: BootstrapInterval | None
    minutes: float


def read_outcomes(jobs: Sequence[Job]) -> dict[str, dict[int, dict[str, Any]]]:
    """What is done of a plan: by run and seed, the content of the results file."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for job in jobs:
        if job.is_done():
            content = json.loads(job.result.read_text())
            found.setdefault(job.run.name, {})[job.seed] = content
    return found


def rows_of(
    plan: Plan, outcomes: Mapping[str, Mapping[int, Mapping[str, Any]]], *, resamples: int = 10_000
) -> list[Row]:
    """A row for each run of which something is done.

    Args:
        plan: the plan.
        outcomes: see :func:`read_outcomes`.
        resamples: of the bootstrap.

    Raises:
        KdpsError: runs were evaluated on different queries.
    """
    base, upper = outcomes.get(plan.baseline, {}), outcomes.get(plan.upper, {})
    rows = []
    for run in plan.runs:
        own = outcomes.get(run.name)
        if not own:
            continue
        difference = share = None
        common = [seed for seed in own if seed in base]
        if run.name != plan.baseline and common:
            values, low = (_query_ap(x, common) for x in (own, base))
            difference = nested_interval(values - low, resamples=resamples)
        common = [seed for seed in common if seed in upper]
        if run.name not in (plan.baseline, plan.upper) and common:
            values, low, high = (_query_ap(x, common) for x in (own, base, upper))
            share = gap_share(values, low, high, resamples=resamples).share
        keys = ("mAP", "top1", "recall", "AP")
        rows.append(
            Row(
                run=run,
                seeds=tuple(own),
                scores={key: float(np.mean([x[key] for x in own.values()])) for key in keys},
                difference=difference,
                share=share,
                minutes=float(np.mean([x["seconds"] for x in own.values()])) / 60,
            )
        )
    return rows


def markdown(plan: Plan, rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown; intervals are of 95 %."""
    baseline = plan.run(plan.baseline).label
    lines = []
    for row in rows:
        scores = row.scores
        lines.append(
            [
                row.run.label,
                f"{scores['mAP']:.1f}",
                f"{scores['top1']:.1f}",
                _interval(row.difference, "{:+.1f}"),
                _interval(row.share, "{:.0%}"),
                f"{scores['recall']:.1f}",
                f"{scores['AP']:.1f}",
                f"{row.minutes:.1f}",
                str(len(row.seeds)),
            ]
        )
    heads = [head.format(baseline) for head in _HEADS]
    return tabulate(lines, headers=heads, tablefmt="github", disable_numparse=True)


def _interval(interval: BootstrapInterval | None, form: str) -> str:
    if interval is None:
        return ""
    if math.isnan(interval.lower):
        return "no gap"
    mean, lower, upper = (form.format(x) for x in (interval.mean, interval.lower, interval.upper))
    return f"{mean} ({lower} to {upper})"


def _query_ap(outcomes: Mapping[int, Mapping[str, Any]], seeds: Sequence[int]) -> np.ndarray:
    """(S, Q) AP in percent."""
    values = [outcomes[seed]["query_AP"] for seed in seeds]
    if len(set(map(len, values))) > 1:
        raise KdpsError("runs of this ablation were evaluated on different queries")
    return np.array(values, dtype=np.float64)
