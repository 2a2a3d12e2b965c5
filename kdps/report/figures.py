# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What all charts share: their style, lines that differ without colour, and SVG as text."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdps.evaluation.search import SearchResult

# Okabe and Ito's colours, with line styles that tell the lines apart without colour.
BLUE, VERMILION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6B6B6B"
LINE_STYLES = (
    {"color": BLUE, "linestyle": "-", "linewidth": 2.4},
    {"color": VERMILION, "linestyle": "--", "linewidth": 1.8},
    {"color": GREEN, "linestyle": "-.", "linewidth": 1.8},
    {"color": GREY, "linestyle": ":", "linewidth": 2.0},
    {"color": PURPLE, "linestyle": (0, (6, 1, 1, 1, 1, 1)), "linewidth": 1.8},
)
STYLE = {
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
_WIDTH_INCHES = 5.0


def new_figure(height: float = 3.6) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; to be filled within ``matplotlib.rc_context(STYLE)``.

    Args:
        height: in inches; the width is the same for all.
    """
    # Not pyplot: it keeps figures alive and looks for a display.
    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    return figure, figure.add_subplot()


def plot_cmc(
    axes: Axes, lines: Iterable[tuple[str, SearchResult, Mapping[str, Any]]], max_rank: int
) -> None:
    """Share of queries whose person is among the first k.

    Args:
        axes: what to draw on.
        lines: label, result and style of each.
        max_rank: largest k.
    """
    for label, result, style in lines:
        axes.plot(np.arange(1, max_rank + 1), 100 * result.cmc(max_rank), label=label, **style)
    axes.set(xlabel="rank k", ylabel="queries found by rank k (%)", ylim=(0, 102))
    axes.set_xlim(1, max_rank)
    axes.set_xticks([1, *range(5, max_rank + 1, 5)])


def legend_above(axes: Axes, columns: int) -> None:
    """Put the legend over the axes, where it covers nothing."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=columns,
        columnspacing=1.0,
        handlelength=2.2,
        borderaxespad=0.2,
    )


def to_svg(figure: Figure) -> str:
    """The figure as SVG text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
