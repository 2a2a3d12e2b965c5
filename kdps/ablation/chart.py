# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The picture of an ablation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl

from kdps.ablation.plan import Plan
from kdps.ablation.table import Row
from kdps.report.figures import BLUE, GREEN, STYLE, new_figure, to_svg

_INCHES_PER_ROW = 0.3


def chart(plan: Plan, rows: Sequence[Row]) -> str:
    """What each run adds to the mAP of the baseline, with 95 % intervals, as SVG text.

    Args:
        plan: the plan.
        rows: of its table; those without a difference to the baseline are left out.
    """
    shown = [row for row in rows if row.difference and not math.isnan(row.difference.mean)]
    with mpl.rc_context(STYLE):
        count = max(len(shown), 1)
        figure, axes = new_figure(height=0.9 + _INCHES_PER_ROW * count)
        for place, row in enumerate(shown):
            mean, lower, upper = (
                getattr(row.difference, name) for name in ("mean", "lower", "upper")
            )
            axes.errorbar(
                mean,
                place,
                xerr=[[mean - lower], [upper - mean]],
                fmt="D" if row.run.name == plan.upper else "o",
                color=GREEN if row.run.name == plan.upper else BLUE,
                capsize=3,
            )
        baseline = plan.run(plan.baseline).label
        axes.axvline(0, color="black", linewidth=1)
        axes.set(
            xlabel=f"mAP minus that of {baseline}, with 95 % interval",
            yticks=range(len(shown)),
            yticklabels=[row.run.label for row in shown],
            ylim=(count - 0.5, -0.5),
        )
        axes.grid(axis="y", visible=False)
        return to_svg(figure)
