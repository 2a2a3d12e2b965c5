# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Persons drawn on images."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from enum import Enum

import numpy as np
from detectron2.utils.visualizer import VisImage, Visualizer

Color = tuple[float, float, float]

# Steps of the golden ratio round the colour circle keep neighbouring ids far apart.
_GOLDEN_RATIO = (5**0.5 - 1) / 2


class Verdict(Enum):
    """What is known about a box beside a query; its colour and its mark.

    Colours are those of Okabe and Ito, which people with any common colour blindness can tell
    apart; the mark says the same without colour.
    """

    QUERY = ((0, 114, 178), "", "query")
    HIT = ((64, 64, 64), "", "hit, not judged")
    RIGHT = ((0, 158, 115), "\u2713", "same person")
    WRONG = ((213, 94, 0), "\u2717", "another person")
    UNKNOWN = ((117, 117, 117), "?", "identity not known")
    TRUTH = ((0, 114, 178), "", "the person, where annotated")

    def __init__(self, rgb: tuple[int, int, int], mark: str, meaning: str) -> None:
        self.rgb = rgb
        self.mark = mark
        self.meaning = meaning

    @property
    def color(self) -> Color:
        """RGB in 0 to 1, as matplotlib takes it."""
        return tuple(channel / 255 for channel in self.rgb)

    @property
    def css(self) -> str:
        """As ``#rrggbb``."""
        return "#{:02x}{:02x}{:02x}".format(*self.rgb)


def person_color(person_id: int) -> Color:
    """A lasting colour (RGB in 0 to 1) for an identity; unlabelled persons are grey."""
    if person_id < 0:
        return (0.75, 0.75, 0.75)
    # Three rounds of brightness tell apart ids whose hues come close.
    return colorsys.hsv_to_rgb(
        person_id * _GOLDEN_RATIO % 1.0, 0.85, (1.0, 0.8, 0.9)[person_id % 3]
    )


class PersonSearchVisualizer(Visualizer):
    """Detectron2's visualizer with identities and verdicts."""

    def draw_persons(
        self,
        boxes: np.ndarray,
        *,
        person_ids: Sequence[int] | None = None,
        scores: Sequence[float] | None = None,
        verdicts: Sequence[Verdict] | None = None,
    ) -> VisImage:
        """Draw boxes with their identities and scores.

        Args:
            boxes: (R, 4) XYXY pixels.
            person_ids: one per box, -1 for an unlabelled person. Gives label and colour.
            scores: one per box, added to the label.
            verdicts: one per box; their colours take the place of those of the identities.
        """
        num = len(boxes)
        if verdicts is not None:
            colors = [verdict.color for verdict in verdicts]
        elif person_ids is not None:
            colors = [person_color(person_id) for person_id in person_ids]
        else:
            colors = [Verdict.QUERY.color] * num
        labels = [[] for _ in range(num)]
        if person_ids is not None:
            for label, person_id in zip(labels, person_ids, strict=True):
                label.append(f"id {person_id}" if person_id >= 0 else "no id")
        if scores is not None:
            for label, score in zip(labels, scores, strict=True):
                label.append(f"{score:.2f}")
        texts = [" ".join(label) for label in labels] if any(labels) else None
        return self.overlay_instances(
            boxes=np.asarray(boxes, dtype=np.float64), labels=texts, assigned_colors=colors
        )

    def draw_verdict(self, box: Sequence[float], verdict: Verdict) -> VisImage:
        """Outline one box (XYXY pixels) in its verdict's colour, over a thin light edge."""
        self.draw_box(_grow(box, 1.0), alpha=0.8, edge_color="white")
        return self.draw_box(box, alpha=1.0, edge_color=verdict.color)


def _grow(box: Sequence[float], by: float) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return x0 - by, y0 - by, x1 + by, y1 + by
