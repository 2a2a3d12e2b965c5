# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Resizes by OpenCV: that of Caffe's Faster R-CNN, on which OIM-Net is built, and MMDetection's."""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data.transforms import Transform

from kdps.data.transforms import FloatResizeTransform, ResizeShortestEdgeFloor


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

    def _resize(self, h: int, w: int, length: int, max_size: int) -> Transform:
        scale = length / min(h, w)
        if np.round(scale * max(h, w)) > max_size:
            scale = max_size / max(h, w)
        return OpenCVResizeTransform(scale)


class OpenCVSizeTransform(FloatResizeTransform):
    """Bilinear resize to given sides, by OpenCV: pixels keep their type and are rounded to it.

    Args:
        h, w: original height and width.
        new_h, new_w: height and width after the resize.
    """

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, C) or (H, W) pixels to ones of the new size and the same type."""
        return cv2.resize(img, (self.new_w, self.new_h), interpolation=cv2.INTER_LINEAR)


class ResizeShortestEdgeOpenCVUint8(ResizeShortestEdgeFloor):
    """MMDetection's resize, on which AlignPS is built: as its parent's, but with sides rounded and
    pixels of uint8, as Detectron2 has them, by OpenCV."""

    def _resize(self, h: int, w: int, length: int, max_size: int) -> Transform:
        scale = min(length / min(h, w), max_size / max(h, w))
        return OpenCVSizeTransform(h, w, int(h * scale + 0.5), int(w * scale + 0.5))
