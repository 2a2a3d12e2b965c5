# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The resize of Caffe's Faster R-CNN, on which OIM-Net is built."""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data.transforms import Transform

from kdps.data.transforms import ResizeShortestEdgeFloor


class OpenCVResizeTransform(Transform):
    """Bilinear resize of float pixels by one factor.

    Pixels and coordinates are scaled by exactly this factor; the sides, which have to be whole
    numbers, are rounded.

    Args:
        scale: factor on both axes.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, C) or (H, W) pixels of any type to float32 pixels of the new size."""
        return self._resize(img.astype(np.float32), cv2.INTER_LINEAR)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(N, 2) x and y."""
        return coords * self.scale

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """(H, W) labels, by nearest neighbour."""
        return self._resize(segmentation, cv2.INTER_NEAREST)

    def inverse(self) -> Transform:
        return OpenCVResizeTransform(1.0 / self.scale)

    def _resize(self, img: np.ndarray, interpolation: int) -> np.ndarray:
        # OpenCV takes the factor for the pixels only if the size is left to it.
        return cv2.resize(img, None, fx=self.scale, fy=self.scale, interpolation=interpolation)


class ResizeShortestEdgeOpenCV(ResizeShortestEdgeFloor):
    """OIM-Net's resize: as its parent's, but with sides rounded and pixels scaled by OpenCV.

    The longer side is bounded when it would be rounded to more than ``max_size``.
    """

    def _resize(self, h: int, w: int, length: int) -> Transform:
        scale = length / min(h, w)
        if np.round(scale * max(h, w)) > self.max_size:
            scale = self.max_size / max(h, w)
        return OpenCVResizeTransform(scale)
