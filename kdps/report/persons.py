# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The persons of one scene, numbered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdps.utils.visualizer import PersonSearchVisualizer, person_color


def numbered_persons(image: np.ndarray, boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """The scene with each box drawn and numbered from 1.

    Args:
        image: (H, W, 3) uint8 RGB scene.
        boxes: XYXY absolute pixels.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    drawn = PersonSearchVisualizer(image).overlay_instances(
        boxes=np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
        labels=[str(number) for number in range(1, len(boxes) + 1)],
        assigned_colors=[person_color(number) for number in range(1, len(boxes) + 1)],
    )
    return drawn.get_image()
