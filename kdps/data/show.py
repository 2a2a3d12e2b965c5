# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Pictures of records: boxes, identities and queries."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from detectron2.data import Metadata
from detectron2.structures import BoxMode
from detectron2.utils.visualizer import ColorMode, VisImage, Visualizer

from kdps.data.image_file import read_pixels
from kdps.data.records import UNLABELLED
from kdps.errors import KdpsError

_GREY = (0.7, 0.7, 0.7)
# Images whose longer side is shorter than this are drawn enlarged.
_SHOWN_SIDE = 1600
# Steps of the golden angle give neighbouring identities far apart hues.
_GOLDEN = 0.618034


def draw_record(record: dict[str, Any]) -> VisImage:
    """Draw the boxes of a record with their identities; queries are dashed.

    One identity has one colour in all images of a set; unlabelled people are grey.

    Raises:
        KdpsError: the image cannot be read.
    """
    image = read_pixels(record["file_name"], "RGB")
    # Labels have a least size; in a small image they would hide the people.
    scale = max(1.0, _SHOWN_SIDE / max(image.shape[:2]))
    visualizer = Visualizer(image, Metadata(), scale, ColorMode.SEGMENTATION)
    annotations = record["annotations"]
    for person, box in zip(annotations, _boxes(annotations), strict=True):
        pid = person["person_id"]
        color = identity_color(pid)
        visualizer.draw_box(box, alpha=1.0, edge_color=color)
        label = "unlabelled" if pid == UNLABELLED else f"id {pid}"
        # Below the box and to its right, where the label hides little of the person.
        visualizer.draw_text(label, (box[0], box[3]), color=color, horizontal_alignment="left")
    queries = record.get("queries", [])
    for query, box in zip(queries, _boxes(queries), strict=True):
        visualizer.draw_box(box, alpha=1.0, edge_color="w", line_style="--")
        label = f"query {query['query_id']}"
        visualizer.draw_text(label, (box[2], box[1]), color="w", horizontal_alignment="left")
    return visualizer.output


def identity_color(pid: int) -> tuple[float, float, float]:
    """RGB in 0..1 for an identity; grey for an unlabelled person."""
    if pid == UNLABELLED:
        return _GREY
    return colorsys.hsv_to_rgb((pid * _GOLDEN) % 1.0, 0.75, 1.0)


def choose_records(
    records: list[dict[str, Any]], num: int, person: int | None = None
) -> list[dict[str, Any]]:
    """Up to ``num`` records spread evenly over a split, or over the images of one person.

    Raises:
        KdpsError: the person is in no image.
    """
    if person is not None:
        records = [r for r in records if any(a["person_id"] == person for a in r["annotations"])]
        if not records:
            raise KdpsError(f"identity {person} is in no image of the set")
    picks = np.linspace(0, len(records) - 1, min(num, len(records))).round().astype(int)
    return [records[i] for i in picks]


def _boxes(items: list[dict[str, Any]]) -> np.ndarray:
    boxes = [BoxMode.convert(i["bbox"], i["bbox_mode"], BoxMode.XYXY_ABS) for i in items]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)
