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
        difference: mAP minus that of the baseline; None for the baseline.
        share: of the gap between baseline and upper run that it closes; None for these two.
        common: numbers of seeds that difference and share are of: those that the baseline, and the
            upper run, have as well. With 0 there is neither.
        minutes: of a training.
        commits: of the code that trained.
    """

    run: Run
    seeds: tuple[int, ...]
    scores: Mapping[str, float]
    difference: BootstrapInterval | None
    share: BootstrapInterval | None
    common: tuple[int, int]
    minutes: float
    commits: frozenset[str]


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
    _check_queries(outcomes)
    base, upper = outcomes.get(plan.baseline, {}), outcomes.get(plan.upper, {})
    rows = []
    for run in plan.runs:
        own = outcomes.get(run.name)
        if not own:
            continue
        difference = share = None
        with_base = [seed for seed in own if seed in base]
        if run.name != plan.baseline and with_base:
            values, low = (_query_ap(x, with_base) for x in (own, base))
            difference = nested_interval(values - low, resamples=resamples)
        with_both = [seed for seed in with_base if seed in upper]
        if run.name not in (plan.baseline, plan.upper) and with_both:
            values, low, high = (_query_ap(x, with_both) for x in (own, base, upper))
            share = gap_share(values, low, high, resamples=resamples).share
        keys = ("mAP", "top1", "recall", "AP")
        rows.append(
            Row(
                run=run,
                seeds=tuple(own),
                scores={key: float(np.mean([x[key] for x in own.values()])) for key in keys},
                difference=difference,
                share=share,
                common=(len(with_base), len(with_both)),
                minutes=float(np.mean([x["seconds"] for x in own.values()])) / 60,
                commits=frozenset(str(x["commit"]) for x in own.values()),
            )
        )
    return rows


def markdown(plan: Plan, rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown; intervals are of 95 %.

    Below it stands what a reader must know of them: seeds that are fewer than those of the row, and
    code that was not the same.
    """
    baseline = plan.run(plan.baseline).label
    lines = []
    for row in rows:
        scores = row.scores
        lines.append(
            [
                row.run.label,
                f"{scores['mAP']:.1f}",
                f"{scores['top1']:.1f}",
                _interval(row.difference, "{:+.1f}", row.common[0], len(row.seeds)),
                _interval(row.share, "{:.0%}", row.common[1], len(row.seeds)),
                f"{scores['recall']:.1f}",
                f"{scores['AP']:.1f}",
                f"{row.minutes:.1f}",
                str(len(row.seeds)),
            ]
        )
    heads = [head.format(baseline) for head in _HEADS]
    table = tabulate(lines, headers=heads, tablefmt="github", disable_numparse=True)
    notes = [
        "Intervals are of 95 %, over seeds and queries; with one seed, over queries only. A "
        "difference or share of fewer seeds than its row says so."
    ]
    commits = sorted(frozenset().union(*(row.commits for row in rows)))
    if len(commits) > 1:
        notes.append(f"The runs are of different code: {', '.join(commits)}.")
    return "\n\n".join([table, *notes])


def _interval(interval: BootstrapInterval | None, form: str, common: int, seeds: int) -> str:
    if interval is None:
        return ""
    if math.isnan(interval.mean):
        return "no gap"
    mean, lower, upper = (
        "open" if math.isinf(x) else form.format(x)
        for x in (interval.mean, interval.lower, interval.upper)
    )
    of = f"; {common} seed{'s' * (common > 1)}" if common < seeds else ""
    return f"{mean} ({lower} to {upper}{of})"


def _check_queries(outcomes: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> None:
    """Raise a KdpsError if two runs were evaluated on different queries."""
    first = None
    for name, of_run in outcomes.items():
        for seed, own in of_run.items():
            asked = (own["dataset"], own["query_ids"])
            first = first or (name, seed, asked)
            if asked != first[2]:
                raise KdpsError(
                    f"{name}, seed {seed}, and {first[0]}, seed {first[1]}, were evaluated on "
                    f"different queries ({len(asked[1])} of {asked[0]}, {len(first[2][1])} of "
                    f"{first[2][0]})"
                )


def _query_ap(outcomes: Mapping[int, Mapping[str, Any]], seeds: Sequence[int]) -> np.ndarray:
    """(S, Q) AP in percent."""
    return np.array([outcomes[seed]["query_AP"] for seed in seeds], dtype=np.float64)
