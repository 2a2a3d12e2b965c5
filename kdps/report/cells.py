# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The picture of one person in a scene, as it stands in a sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from kdps.utils.visualizer import PersonSearchVisualizer, Verdict

# Share of the cell's height that the person takes; the rest is the scene around.
_PERSON_SHARE = 0.62
_PADDING_RGB = (236, 236, 236)


@dataclass(frozen=True)
class Cell:
    """One person to show.

    Attributes:
        picture: (H, W, 3) uint8 RGB, see ``person_picture``.
        verdict: gives the frame's colour and the mark.
        heading: short text in bold ("query", "1").
        lines: text below the heading, the last one being the file's name.
    """

    picture: np.ndarray
    verdict: Verdict
    heading: str
    lines: tuple[str, ...] = ()


def person_picture(
    image: np.ndarray,
    box: Sequence[float],
    verdict: Verdict,
    size: tuple[int, int] = (180, 240),
) -> np.ndarray:
    """The surroundings of a box, the box drawn in its verdict's colour.

    Args:
        image: (H, W, 3) uint8 RGB scene.
        box: XYXY absolute pixels of the scene.
        verdict: what is known about the person.
        size: width and height of the picture in pixels.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    patch, inner = crop_around(image, box, size)
    return PersonSearchVisualizer(patch).draw_verdict(inner, verdict).get_image()


def crop_around(
    image: np.ndarray, box: Sequence[float], size: tuple[int, int]
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Cut out a box with its surroundings and scale the cut to a fixed size.

    The window slides back into the image where it would leave it; an image smaller than the
    window is padded.

    Args:
        image: (H, W, 3) uint8.
        box: XYXY absolute pixels.
        size: width and height of the result.

    Returns:
        The (height, width, 3) cut and the box (XYXY) in its pixels.
    """
    x0, y0, x1, y1 = box
    width, height = size
    window_h = max((y1 - y0) / _PERSON_SHARE, (x1 - x0) / _PERSON_SHARE * height / width, 8.0)
    window_w = window_h * width / height
    left = _slide((x0 + x1 - window_w) / 2, window_w, image.shape[1])
    top = _slide((y0 + y1 - window_h) / 2, window_h, image.shape[0])

    rows = np.array([round(top), round(top + window_h)])
    columns = np.array([round(left), round(left + window_w)])
    inside = image[slice(*rows.clip(0, image.shape[0])), slice(*columns.clip(0, image.shape[1]))]
    cut = cv2.copyMakeBorder(
        inside,
        top=max(0, -rows[0]),
        bottom=max(0, rows[1] - image.shape[0]),
        left=max(0, -columns[0]),
        right=max(0, columns[1] - image.shape[1]),
        borderType=cv2.BORDER_CONSTANT,
        value=_PADDING_RGB,
    )
    shrinking = cut.shape[0] > height
    resized = cv2.resize(cut, size, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC)
    scale_x, scale_y = width / cut.shape[1], height / cut.shape[0]
    inner = (
        (x0 - columns[0]) * scale_x,
        (y0 - rows[0]) * scale_y,
        (x1 - columns[0]) * scale_x,
        (y1 - rows[0]) * scale_y,
    )
    return resized, tuple(float(value) for value in inner)


def _slide(start: float, length: float, limit: int) -> float:
    """Move [start, start + length) into [0, limit); centre it if it is longer."""
    if length >= limit:
        return (limit - length) / 2
    return min(max(start, 0.0), limit - length)
