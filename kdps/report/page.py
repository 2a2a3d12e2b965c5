# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

import numpy as np

from kdps.report import charts
from kdps.report.content import ReportContent
from kdps.report.rendering import MAX_BYTES, render_capped, svg_uri


def render_page(content: ReportContent, max_bytes: int = MAX_BYTES) -> str:
    """Render a report within a size.

    Args:
        content: what to tell.
        max_bytes: largest size of the page in UTF-8; see ``render_capped``.

    Returns:
        HTML without scripts, links or any reference to another file.
    """
    return render_capped(
        "report.html.j2", content.shown, max_bytes, content=content, charts=_charts(content)
    )


def _charts(content: ReportContent) -> list[dict[str, str]]:
    """Title, SVG and text alternative of each chart."""
    model = content.rows[0]
    found = {row.label: 100 * row.result.cmc(10) for row in content.rows}
    result = [
        {
            "title": "How soon the person is found (CMC)",
            "uri": svg_uri(charts.cmc_chart(content.rows)),
            "alt": "Share of queries found by rank 1 and by rank 10: "
            + "; ".join(
                f"{name} {cmc[0]:.0f} % and {cmc[-1]:.0f} %" for name, cmc in found.items()
            ),
        },
        {
            "title": "How the queries differ",
            "uri": svg_uri(charts.ap_histogram(model.result)),
            "alt": "Histogram of the queries' average precision; the median is "
            f"{100 * np.median(model.result.ap[model.result.scored]):.0f} %",
        },
    ]
    history = content.history
    if history is not None:
        last = {name: curve[-1][1] for name, curve in history.losses.items()}
        result.append(
            {
                "title": "Training: losses",
                "uri": svg_uri(charts.loss_chart(history)),
                "alt": "Training losses; at the end "
                + ", ".join(f"{name} {value:.3g}" for name, value in last.items()),
            }
        )
        if history.search_map:
            iteration, value = history.search_map[-1]
            result.append(
                {
                    "title": "Training: search accuracy",
                    "uri": svg_uri(charts.map_chart(history)),
                    "alt": f"mAP during training; {value:.1f} % at iteration {iteration}",
                }
            )
    return result
