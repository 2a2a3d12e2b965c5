# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The report's charts, as SVG text."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kdps.evaluation.search import SearchResult
from kdps.report.history import TrainingHistory
from kdps.report.rows import Row

# Okabe and Ito's colours, with line styles that tell the rows apart without colour.
_ROW_STYLES = {
    "model": {"color": "#0072B2", "linestyle": "-", "linewidth": 2.4},
    "gt_boxes": {"color": "#009E73", "linestyle": "--", "linewidth": 1.8},
    "histogram": {"color": "#D55E00", "linestyle": "-.", "linewidth": 1.8},
    "random": {"color": "#6B6B6B", "linestyle": ":", "linewidth": 1.8},
}
_LOSS_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F")
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "legend.fontsize": 9,
    # The same data give the same bytes.
    "svg.hashsalt": "kdps",
}
_SIZE_INCHES = (5.0, 3.6)


def cmc_chart(rows: Sequence[Row], max_rank: int = 20) -> str:
    """Share of queries whose person is among the first k, for each row."""
    with mpl.rc_context(_STYLE):
        figure, axes = _new_figure()
        ranks = np.arange(1, max_rank + 1)
        for row in rows:
            share = 100 * row.result.cmc(max_rank)
            axes.plot(ranks, share, label=row.label, **_ROW_STYLES[row.key])
        axes.set(xlabel="rank k", ylabel="queries found by rank k (%)", ylim=(0, 102))
        axes.set_xlim(1, max_rank)
        axes.set_xticks([1, *range(5, max_rank + 1, 5)])
        _legend_above(axes, columns=2)
        return _to_svg(figure)


def ap_histogram(result: SearchResult) -> str:
    """How the average precisions of the queries are spread."""
    with mpl.rc_context(_STYLE):
        figure, axes = _new_figure()
        ap = 100 * result.ap[result.scored]
        color = _ROW_STYLES["model"]["color"]
        axes.hist(ap, bins=np.linspace(0, 100, 11), color=color, edgecolor="white")
        axes.axvline(ap.mean(), color="black", linestyle="--", label=f"mean (mAP) {ap.mean():.1f}")
        axes.set(xlabel="average precision of a query (%)", ylabel="queries", xlim=(0, 100))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="x", visible=False)
        _legend_above(axes, columns=1)
        return _to_svg(figure)


def loss_chart(history: TrainingHistory) -> str:
    """Total loss and its parts over the iterations, on a logarithmic scale."""
    with mpl.rc_context(_STYLE):
        figure, axes = _new_figure()
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
        _legend_above(axes, columns=3)
        return _to_svg(figure)


def map_chart(history: TrainingHistory) -> str:
    """mAP of the evaluations during training."""
    with mpl.rc_context(_STYLE):
        figure, axes = _new_figure()
        _plot(axes, history.search_map, marker="o", color=_ROW_STYLES["model"]["color"])
        axes.set(xlabel="iteration", ylabel="mAP (%)", ylim=(0, 102))
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return _to_svg(figure)


def _new_figure() -> tuple[Figure, Axes]:
    # Not pyplot: it keeps figures alive and looks for a display.
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    return figure, figure.add_subplot()


def _plot(axes: Axes, curve: Sequence[tuple[int, float]], **style) -> None:
    axes.plot(*zip(*curve, strict=True), **style)


def _legend_above(axes: Axes, columns: int) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=columns,
        columnspacing=1.0,
        handlelength=2.2,
        borderaxespad=0.2,
    )


def _to_svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
