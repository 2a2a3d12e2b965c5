# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Geometry of the input that torchvision's detectors use and Detectron2 does not have."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.data import transforms as T
from detectron2.data.transforms import Augmentation, Transform


class FloatResizeTransform(Transform):
    """Bilinear resize of float pixels, without anti-aliasing.

    Args:
        h, w: original height and width.
        new_h, new_w: height and width after the resize.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int) -> None:
        super().__init__()
        self.h, self.w, self.new_h, self.new_w = h, w, new_h, new_w

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, C) or (H, W) pixels of any type to float32 pixels of the new size."""
        if img.shape[:2] != (self.h, self.w):
            raise ValueError(f"image is {img.shape[:2]}, the transform is for {(self.h, self.w)}")
        flat = img.reshape(self.h, self.w, -1)
        tensor = torch.from_numpy(np.ascontiguousarray(flat.transpose(2, 0, 1), dtype=np.float32))
        size = (self.new_h, self.new_w)
        out = F.interpolate(tensor[None], size=size, mode="bilinear", align_corners=False)[0]
        return out.permute(1, 2, 0).numpy().reshape(*size, *img.shape[2:])

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(N, 2) x and y, each scaled by the quotient of the new and the old side."""
        return coords * np.array([self.new_w / self.w, self.new_h / self.h])

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """(H, W) labels, by nearest neighbour."""
        tensor = torch.from_numpy(np.ascontiguousarray(segmentation, dtype=np.float64))
        out = F.interpolate(tensor[None, None], size=(self.new_h, self.new_w), mode="nearest")
        return out[0, 0].numpy().astype(segmentation.dtype)

    def inverse(self) -> Transform:
        return type(self)(self.new_h, self.new_w, self.h, self.w)


class ResizeShortestEdgeFloor(Augmentation):
    """The resize of torchvision's detectors, which SeqNet, NAE and COAT were trained with.

    It differs from Detectron2's ``ResizeShortestEdge`` in working on float pixels and in cutting
    the sides off to whole pixels (1080x1920 becomes 843x1500, not 844x1500). These methods
    normalise first; a bilinear resize and a normalisation per channel commute up to rounding.

    Args:
        short_edge_length: lengths to draw the shorter side from.
        max_size: bound of the longer side; several are one for each length ("choice" only).
        sample_style: "choice" draws one of the lengths, "range" from the interval they bound.
    """

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int | Sequence[int],
        sample_style: str = "choice",
    ) -> None:
        super().__init__()
        if sample_style not in ("choice", "range"):
            raise ValueError(f"sample_style {sample_style!r} is neither 'choice' nor 'range'")
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length,)
        self.short_edge_length = tuple(short_edge_length)
        if not isinstance(max_size, int):
            max_size = tuple(max_size)
            if sample_style == "range" or len(max_size) != len(self.short_edge_length):
                raise ValueError(
                    f"{len(max_size)} bounds of the longer side need as many lengths to choose "
                    f"from, not {len(self.short_edge_length)} by {sample_style!r}"
                )
        self.max_size = max_size
        self.sample_style = sample_style

    def get_transform(self, image: np.ndarray) -> Transform:
        max_size = self.max_size
        if self.sample_style == "range":
            low, high = min(self.short_edge_length), max(self.short_edge_length)
            length = np.random.randint(low, high + 1)
        else:
            index = np.random.choice(len(self.short_edge_length))
            length = self.short_edge_length[index]
            if not isinstance(max_size, int):
                max_size = max_size[index]
        if length == 0:
            return T.NoOpTransform()
        return self._resize(*image.shape[:2], int(length), max_size)

    def _resize(self, h: int, w: int, length: int, max_size: int) -> Transform:
        return FloatResizeTransform(h, w, *floored_size(h, w, length, max_size))


def floored_size(h: int, w: int, length: int, max_size: int) -> tuple[int, int]:
    """Height and width after scaling by ``min(length / shorter, max_size / longer)``.

    The scale is rounded to float32 before it is used, which decides sides at a whole number.
    """
    shorter, longer = np.float32(min(h, w)), np.float32(max(h, w))
    scale = float(min(np.float32(length) / shorter, np.float32(max_size) / longer))
    return max(1, math.floor(h * scale)), max(1, math.floor(w * scale))
