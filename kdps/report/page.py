# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Mapping, Sequence

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from kdps.report import charts
from kdps.report.content import ReportContent
from kdps.report.showcase import GROUPS, ShownQuery
from kdps.utils.visualizer import Verdict

logger = logging.getLogger(__name__)

MAX_BYTES = 6_000_000
_JPEG_QUALITIES = (88, 75, 60, 45)
_GROUP_TITLES = {
    "best": "Queries it answers best",
    "worst": "Queries it answers worst",
    "random": "Queries picked at random",
}


def render_page(content: ReportContent, max_bytes: int = MAX_BYTES) -> str:
    """Render a report within a size.

    Pictures are compressed more, and at last left out with a note, until the page fits or has none.

    Args:
        content: what to tell.
        max_bytes: largest size of the page in UTF-8.

    Returns:
        HTML without scripts, links or any reference to another file.
    """
    drawn = _charts(content)
    for quality in _JPEG_QUALITIES:
        page = _render(content, drawn, content.shown, quality)
        if len(page.encode()) <= max_bytes:
            return page
    shown = list(content.shown)
    while shown and len(page.encode()) > max_bytes:
        # The group with most queries gives one up, so that bad ones stay beside good ones.
        counts = {group: sum(s.group == group for s in shown) for group in GROUPS}
        largest = max(GROUPS, key=lambda group: counts[group])
        shown.remove([s for s in shown if s.group == largest][-1])
        page = _render(content, drawn, shown, _JPEG_QUALITIES[-1])
    missing = len(content.shown) - len(shown)
    if missing:
        logger.warning("The report shows %d queries less to stay near %d bytes", missing, max_bytes)
    return page


def _render(
    content: ReportContent,
    drawn: Sequence[Mapping[str, str]],
    shown: Sequence[ShownQuery],
    quality: int,
) -> str:
    environment = Environment(
        loader=PackageLoader("kdps.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["jpeg"] = lambda picture: _jpeg_uri(picture, quality)
    return environment.get_template("report.html.j2").render(
        content=content,
        charts=drawn,
        groups=[
            (_GROUP_TITLES[group], [query for query in shown if query.group == group])
            for group in GROUPS
        ],
        num_left_out=len(content.shown) - len(shown),
        legend=(Verdict.QUERY, Verdict.RIGHT, Verdict.WRONG),
    )


def _charts(content: ReportContent) -> list[dict[str, str]]:
    """Title, SVG and text alternative of each chart."""
    model = content.rows[0]
    found = {row.label: 100 * row.result.cmc(10) for row in content.rows}
    result = [
        {
            "title": "How soon the person is found (CMC)",
            "uri": _svg_uri(charts.cmc_chart(content.rows)),
            "alt": "Share of queries found by rank 1 and by rank 10: "
            + "; ".join(
                f"{name} {cmc[0]:.0f} % and {cmc[-1]:.0f} %" for name, cmc in found.items()
            ),
        },
        {
            "title": "How the queries differ",
            "uri": _svg_uri(charts.ap_histogram(model.result)),
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
                "uri": _svg_uri(charts.loss_chart(history)),
                "alt": "Training losses; at the end "
                + ", ".join(f"{name} {value:.3g}" for name, value in last.items()),
            }
        )
        if history.search_map:
            iteration, value = history.search_map[-1]
            result.append(
                {
                    "title": "Training: search accuracy",
                    "uri": _svg_uri(charts.map_chart(history)),
                    "alt": f"mAP during training; {value:.1f} % at iteration {iteration}",
                }
            )
    return result


def _svg_uri(svg: str) -> str:
    return _data_uri("image/svg+xml", svg.encode())


def _jpeg_uri(picture: np.ndarray, quality: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, optimize=True)
    return _data_uri("image/jpeg", buffer.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
