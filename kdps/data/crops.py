# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""People cut out of images, and the windows that spatial-invariant augmentation cuts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.structures import Boxes
from torchvision.ops import roi_align


def crop_people(
    images: torch.Tensor, boxes: list[Boxes] | torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Cut boxes out of images and resize them, to fractions of a pixel.

    Each pixel of a crop is the mean of as many bilinear samples as the box has pixels there, so
    that large boxes are not aliased. What lies beyond an image is zero: normalised images have
    their mean there.

    Args:
        images: (N, C, H, W) float pixels, all padded to one size.
        boxes: for each image (R_i, 4) XYXY pixels of it; or (R, 5), the number of the image first.
        size: height and width of a crop.

    Returns:
        (R, C, height, width) crops of all images, in the order of the boxes.
    """
    if not isinstance(boxes, torch.Tensor):
        boxes = [own.tensor.to(images.dtype) for own in boxes]
    return roi_align(images, boxes, size, aligned=True)


@dataclass(frozen=True)
class WindowRange:
    """How far spatial-invariant augmentation moves the box of a person.

    "Diverse Knowledge Distillation for End-to-End Person Search" (Zhang et al., AAAI 2021): what
    padding and a random crop are to a re-ID network, on the pixels around the box. The paper's
    values are not known; the defaults are ours.

    Attributes:
        size: height and width of a crop in the re-ID network.
        padding: pixels of that crop on each side.
        alpha: the most pixels of the original image that a window may travel along an axis.
    """

    size: tuple[int, int] = (256, 128)
    padding: float = 10.0
    alpha: float = 24.0

    def travel(self, boxes: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        """Between the extreme places of a window: min(2 w dp / W, alpha), and likewise with h.

        Args:
            boxes: (R, 4) XYXY.
            scale: pixels of these boxes per pixel of the original image.

        Returns:
            (R, 2) along x and y, in pixels of the boxes.
        """
        sides = boxes[:, 2:] - boxes[:, :2]
        share = 2 * self.padding / sides.new_tensor([self.size[1], self.size[0]])
        return (sides * share).clamp(max=self.alpha * scale)

    def windows(
        self, boxes: torch.Tensor, places: torch.Tensor, scale: float = 1.0
    ) -> torch.Tensor:
        """Windows of the sizes of the boxes.

        Args:
            boxes: (R, 4) XYXY.
            places: (R, 2) along x and y, from 0 (the least) over 1/2 (the box itself) to 1.
            scale: see :meth:`travel`.
        """
        return boxes + (self.travel(boxes, scale) * (places - 0.5)).repeat(1, 2)
