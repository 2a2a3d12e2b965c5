# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Boxes as Caffe's Faster R-CNN counts them: the last corner is a pixel inside of the box.

Such a box is one pixel wider than the difference of its corners. Everywhere else in kdps, as in
Detectron2, it is not; :func:`enlarged` is the way from one to the other.
"""

from __future__ import annotations

import math

import torch
from detectron2.modeling.box_regression import Box2BoxTransform


def enlarged(boxes: torch.Tensor, pixels: float | torch.Tensor) -> torch.Tensor:
    """(R, 4) XYXY boxes whose last corner is moved by so many pixels to the right and down."""
    return torch.cat([boxes[:, :2], boxes[:, 2:] + pixels], dim=1)


def clip_inclusive(boxes: torch.Tensor, size: tuple[int, int], pixel: float = 1.0) -> torch.Tensor:
    """Clip (R, 4) XYXY corners to the first and the last pixel of an image.

    Args:
        boxes: corners.
        size: height and width of the image.
        pixel: side of a pixel in the units of both.
    """
    height, width = size
    last = boxes.new_tensor([width - pixel, height - pixel] * 2)
    return torch.minimum(boxes.clamp(min=0), last)


class InclusiveBoxTransform:
    """``Box2BoxTransform`` of Detectron2 on boxes with their last pixel.

    Unlike there, a box may become as large as the network says. (Detectron2's class is a
    TorchScript one, which cannot be derived from.)
    """

    def __init__(self, weights: tuple[float, float, float, float]) -> None:
        """
        Args:
            weights: factors on the deltas (dx, dy, dw, dh).
        """
        self.weights = tuple(weights)
        self.plain = Box2BoxTransform(weights=self.weights, scale_clamp=math.inf)

    def get_deltas(self, src_boxes: torch.Tensor, target_boxes: torch.Tensor) -> torch.Tensor:
        """(R, 4) deltas from boxes to boxes, both (R, 4)."""
        return self.plain.get_deltas(enlarged(src_boxes, 1.0), enlarged(target_boxes, 1.0))

    def apply_deltas(
        self, deltas: torch.Tensor, boxes: torch.Tensor, pixel: float = 1.0
    ) -> torch.Tensor:
        """Move boxes by deltas.

        Args:
            deltas: (R, 4).
            boxes: (R, 4).
            pixel: side of a pixel in the units of the boxes.
        """
        moved = self.plain.apply_deltas(deltas, enlarged(boxes, pixel))
        return enlarged(moved, -pixel)
