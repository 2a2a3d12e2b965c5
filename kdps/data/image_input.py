# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""From an image in memory to the model's input."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from kdps.data.dataset_mapper import build_augmentation
from kdps.errors import KdpsError


class ImageInput:
    """Resizes images as at test time."""

    def __init__(self, cfg: CfgNode) -> None:
        self._augmentations = T.AugmentationList(build_augmentation(cfg, False))
        self._rgb = cfg.INPUT.FORMAT == "RGB"

    def __call__(self, image: np.ndarray) -> tuple[dict[str, Any], T.TransformList]:
        """
        Args:
            image: (H, W, 3) uint8, BGR as from ``cv2.imread``.

        Returns:
            ``image``, a float32 (3, h, w) tensor, with the original ``height`` and ``width``; and
            what boxes of the original have to go through.

        Raises:
            KdpsError: the image has another shape.
        """
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise KdpsError(
                f"image: expected (H, W, 3) pixels, not an array of shape {image.shape}"
            )
        height, width = image.shape[:2]
        aug_input = T.AugInput(image[:, :, ::-1] if self._rgb else image)
        transforms = self._augmentations(aug_input)
        pixels = np.ascontiguousarray(aug_input.image.transpose(2, 0, 1), dtype=np.float32)
        return {"image": torch.as_tensor(pixels), "height": height, "width": width}, transforms
