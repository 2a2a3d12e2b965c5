# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The report's charts, as SVG text."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kdps.evaluation.search import SearchResult
from kdps.report.figures import (
    BLUE,
    GREEN,
    GREY,
    STYLE,
    VERMILION,
    legend_above,
    new_figure,
    plot_cmc,
    to_svg,
)
from kdps.report.history import TrainingHistory
from kdps.report.rows import Row

_ROW_STYLES = {
    "model": {"color": BLUE, "linestyle": "-", "linewidth": 2.4},
    "gt_boxes": {"color": GREEN, "linestyle": "--", "linewidth": 1.8},
    "histogram": {"color": VERMILION, "linestyle": "-.", "linewidth": 1.8},
    "random": {"color": GREY, "linestyle": ":", "linewidth": 1.8},
}
_LOSS_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F")


def cmc_chart(rows: Sequence[Row], max_rank: int = 20) -> str:
    """Share of queries whose person is among the first k, for each row."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure()
        lines = [(row.label, row.result, _ROW_STYLES[row.key]) for row in rows]
        plot_cmc(axes, lines, max_rank)
        legend_above(axes, columns=2)
        return to_svg(figure)


def ap_histogram(result: SearchResult) -> str:
    """How the average precisions of the queries are spread."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure()
        ap = 100 * result.ap[result.scored]
        axes.hist(ap, bins=np.linspace(0, 100, 11), color=BLUE, edgecolor="white")
        axes.axvline(ap.mean(), color="black", linestyle="--", label=f"mean (mAP) {ap.mean():.1f}")
        axes.set(xlabel="average precision of a query (%)", ylabel="queries", xlim=(0, 100))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="x", visible=False)
        legend_above(axes, columns=1)
        return to_svg(figure)


def loss_chart(history: TrainingHistory) -> str:
    """Total loss and its parts over the iterations, on a logarithmic scale."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure()
        parts = sorted(name for name in history.losses if name != "total_loss")
        for index, name in enumerate(parts):
            color = _LOSS_COLORS[index % len(_LOSS_COLORS)]
            # After one round of the colours another line style goes with them.
            style = ("-", "--", ":")[index // len(_LOSS_COLORS) % 3]
            _plot(axes, history.losses[name], color=color, linestyle=style, label=name[5:])
        if "total_loss" in history.losses:
            _plot(axes, history.losses["total_loss"], color="black", linewidth=2.2, label="total")
        axes.set(xlabel="iteration", ylabel="loss (log scale)", yscale="log")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        legend_above(axes, columns=3)
        return to_svg(figure)


def map_chart(history: TrainingHistory) -> str:
    """mAP of the evaluations during training."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure()
        _plot(axes, history.search_map, marker="o", color=BLUE)
        axes.set(xlabel="iteration", ylabel="mAP (%)", ylim=(0, 102))
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return to_svg(figure)


def _plot(axes: Axes, curve: Sequence[tuple[int, float]], **style) -> None:
    axes.plot(*zip(*curve, strict=True), **style)
