# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Pages as one HTML file each, which needs nothing else and keeps to a size."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

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


def render_capped(template: str, shown: Sequence[ShownQuery], max_bytes: int, **values: Any) -> str:
    """Render a page within a size.

    Pictures are compressed more, and at last left out with a note, until the page fits or has none.

    Args:
        template: name of the template's file.
        shown: queries with their pictures; the template gets them as ``groups``, beside
            ``num_left_out`` and ``legend``.
        max_bytes: largest size of the page in UTF-8.
        values: what else the template asks for.
    """
    for quality in _JPEG_QUALITIES:
        page = _render(template, shown, quality, 0, values)
        if len(page.encode()) <= max_bytes:
            return page
    left = list(shown)
    while left and len(page.encode()) > max_bytes:
        # The group with most queries gives one up, so that bad ones stay beside good ones.
        counts = {group: sum(s.group == group for s in left) for group in GROUPS}
        largest = max(GROUPS, key=lambda group: counts[group])
        left.remove([s for s in left if s.group == largest][-1])
        page = _render(template, left, _JPEG_QUALITIES[-1], len(shown) - len(left), values)
    missing = len(shown) - len(left)
    if missing:
        logger.warning("The report shows %d queries less to stay near %d bytes", missing, max_bytes)
    return page


def svg_uri(svg: str) -> str:
    """An SVG text as the address of an image."""
    return data_uri("image/svg+xml", svg.encode())


def jpeg_uri(picture: np.ndarray, quality: int) -> str:
    """A picture ((H, W, 3) uint8 RGB) as the address of an image."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, optimize=True)
    return data_uri("image/jpeg", buffer.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """A file's content as an address; ``kind`` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _render(
    template: str,
    shown: Sequence[ShownQuery],
    quality: int,
    num_left_out: int,
    values: dict[str, Any],
) -> str:
    environment = Environment(
        loader=PackageLoader("kdps.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["jpeg"] = lambda picture: jpeg_uri(picture, quality)
    return environment.get_template(template).render(
        groups=[
            (_GROUP_TITLES[group], [query for query in shown if query.group == group])
            for group in GROUPS
        ],
        num_left_out=num_left_out,
        legend=(Verdict.QUERY, Verdict.RIGHT, Verdict.WRONG),
        **values,
    )
