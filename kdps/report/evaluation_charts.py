# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The charts of an evaluation, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import NullLocator

from kdps.evaluation.detection import DetectionResult
from kdps.evaluation.errors import ErrorSplit
from kdps.evaluation.search import SearchResult
from kdps.report.curves import RECALL_LEVELS, mean_precision
from kdps.report.figures import (
    BLUE,
    LINE_STYLES,
    STYLE,
    legend_above,
    new_figure,
    plot_cmc,
    to_svg,
)

# As many as there are lines that differ without colour.
MAX_LINES = len(LINE_STYLES)
# Lines only: the dots of a hatch take a hundred kilobytes.
_HATCHES = ("", "///", "\\\\\\", "xxx", "|||")
# Share of the axis that a label of four digits takes.
_LABEL_SHARE = 0.1
# Points of the detector's curve; more of them cannot be seen.
_MAX_POINTS = 400


@dataclass(frozen=True)
class SizeLine:
    """mAP in percent over the gallery size. G = galleries.

    Attributes:
        label: for the legend.
        sizes: (G,) images, ascending.
        mean_ap: (G,) mAP.
        lower: (G,) lower ends of the intervals; NaN where there is none.
        upper: (G,) upper ends.
    """

    label: str
    sizes: np.ndarray
    mean_ap: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def cmc_chart(results: Mapping[str, SearchResult], max_rank: int = 20) -> str:
    """Share of queries whose person is among the first k; ``MAX_LINES`` searches by label."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure()
        styled = zip(results.items(), LINE_STYLES, strict=False)
        plot_cmc(axes, [(*item, style) for item, style in styled], max_rank)
        # Good searches differ within a few percent; from zero their lines would be one.
        lowest = min(100 * result.cmc(1)[0] for result in results.values())
        axes.set_ylim(bottom=max(0, 10 * (lowest // 10) - 10))
        legend_above(axes, columns=2)
        return to_svg(figure)


def size_chart(lines: Sequence[SizeLine]) -> str:
    """mAP over the gallery size, each doubling one step, with intervals as bands."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure()
        for line, style in zip(lines, LINE_STYLES, strict=False):
            axes.plot(line.sizes, line.mean_ap, marker="o", label=line.label, **style)
            axes.fill_between(line.sizes, line.lower, line.upper, color=style["color"], alpha=0.18)
        axes.set_xscale("log", base=2)
        sizes = np.unique(np.concatenate([line.sizes for line in lines]))
        axes.set_xticks(sizes, _spread_labels(sizes))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="gallery images per query (log scale)", ylabel="mAP (%)")
        legend_above(axes, columns=2)
        return to_svg(figure)


def _spread_labels(sizes: np.ndarray) -> list[str]:
    """Labels of ascending ticks on a log axis; none where the next one would run into it."""
    place = np.log2(sizes)
    least = _LABEL_SHARE * (place[-1] - place[0])
    labels = [""] * len(sizes)
    kept = np.inf
    # From the end, since the largest gallery says most.
    for index in reversed(range(len(sizes))):
        if kept - place[index] >= least:
            labels[index], kept = f"{sizes[index]:,}", place[index]
    return labels


def precision_chart(results: Mapping[str, SearchResult]) -> str:
    """Mean precision of the searches over recall; ``MAX_LINES`` searches by label."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure()
        for (label, result), style in zip(results.items(), LINE_STYLES, strict=False):
            axes.plot(RECALL_LEVELS, 100 * mean_precision(result), label=label, **style)
        axes.set(xlabel="recall of a query (%)", ylabel="mean precision (%)")
        axes.set(xlim=(0, 100), ylim=(0, 102))
        legend_above(axes, columns=2)
        return to_svg(figure)


def detection_chart(detection: DetectionResult) -> str:
    """Precision of the boxes over their recall, from the highest score down."""
    recall, precision = detection.curve()
    if len(recall) > _MAX_POINTS:
        points = np.linspace(0, len(recall) - 1, _MAX_POINTS).round().astype(np.int64)
        recall, precision = recall[points], precision[points]
    with mpl.rc_context(STYLE):
        figure, axes = new_figure()
        axes.plot(100 * recall, 100 * precision, color=BLUE, linewidth=2.4)
        axes.set(xlabel="recall of annotated persons (%)", ylabel="precision of detections (%)")
        axes.set(xlim=(0, 100), ylim=(0, 102))
        return to_svg(figure)


def error_chart(splits: Mapping[str, ErrorSplit]) -> str:
    """mAP as it is and without each kind of error; ``MAX_LINES`` searches by label."""
    kinds = ("as it is", "nobody missed", "none badly placed", "none wrong above")
    shown = list(splits.items())[:MAX_LINES]
    height = 0.8 / len(shown)
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(2.4 + 0.5 * len(shown))
        for index, (label, split) in enumerate(shown):
            values = np.array(
                [split.mean_ap, split.missed_mended, split.placement_mended, split.ranking_mended]
            )
            bars = axes.barh(
                np.arange(len(kinds)) + (index - (len(shown) - 1) / 2) * height,
                np.nan_to_num(values),
                height=0.9 * height,
                color=LINE_STYLES[index]["color"],
                hatch=_HATCHES[index],
                edgecolor="white",
                label=label,
            )
            texts = ["not known" if np.isnan(value) else f"{value:.1f}" for value in values]
            axes.bar_label(bars, texts, padding=3, fontsize=9)
        axes.set_yticks(np.arange(len(kinds)), kinds)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        # Room for the numbers behind full bars.
        axes.set(xlabel="mAP (%)", xlim=(0, 112))
        axes.set_xticks(range(0, 101, 20))
        if len(shown) > 1:
            legend_above(axes, columns=2)
        return to_svg(figure)
