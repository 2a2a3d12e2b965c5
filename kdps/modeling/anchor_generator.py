# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Anchors of the detectors on which published methods are built: torchvision's and Caffe's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.modeling.anchor_generator import (
    ANCHOR_GENERATOR_REGISTRY,
    DefaultAnchorGenerator,
)


@ANCHOR_GENERATOR_REGISTRY.register()
class RoundedAnchorGenerator(DefaultAnchorGenerator):
    """Anchors with whole-number corners, ordered by aspect ratio first, then by size.

    Detectron2's own are not rounded and ordered by size first. The order is that of the channels of
    the RPN's predictions, so it matters when published weights are loaded. With
    ``MODEL.ANCHOR_GENERATOR.OFFSET`` 0 the anchors are centred on stride * index. The stride is the
    backbone's; torchvision divides the padded size by the feature size, which is the same for
    images padded to multiples of the stride.
    """

    def generate_cell_anchors(
        self,
        sizes: Sequence[float] = (32, 64, 128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    ) -> torch.Tensor:
        """(len(aspect_ratios) * len(sizes), 4) XYXY anchors around the origin, in pixels."""
        scales = torch.tensor(sizes, dtype=torch.float32)
        heights = torch.tensor(aspect_ratios, dtype=torch.float32).sqrt()
        h = torch.outer(heights, scales).flatten()
        w = torch.outer(1.0 / heights, scales).flatten()
        return (torch.stack([-w, -h, w, h], dim=1) / 2).round()

    def _grid_anchors(self, grid_sizes: list[list[int]]) -> list[torch.Tensor]:
        # The same grid as the parent's, whose call of torch.meshgrid warns on every start.
        anchors = []
        for (rows, columns), stride, cell in zip(
            grid_sizes, self.strides, self.cell_anchors, strict=True
        ):
            y, x = torch.meshgrid(
                (torch.arange(rows, device=cell.device) + self.offset) * stride,
                (torch.arange(columns, device=cell.device) + self.offset) * stride,
                indexing="ij",
            )
            shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
            anchors.append((shifts + cell).reshape(-1, 4))
        return anchors


@ANCHOR_GENERATOR_REGISTRY.register()
class CaffeAnchorGenerator(RoundedAnchorGenerator):
    """Anchors of Caffe's Faster R-CNN (OIM-Net): rounded at a size of 16, then enlarged.

    With ``MODEL.ANCHOR_GENERATOR.OFFSET`` 0.5 they are those of its code, where the last corner is
    a pixel inside of the box, one pixel before the corner here.
    """

    def generate_cell_anchors(
        self,
        sizes: Sequence[float] = (128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    ) -> torch.Tensor:
        """(len(aspect_ratios) * len(sizes), 4) XYXY anchors around the origin, in pixels."""
        ratios = torch.tensor(aspect_ratios, dtype=torch.float32)
        scales = torch.tensor(sizes, dtype=torch.float32) / 16
        widths = (16.0 / ratios.sqrt()).round()
        w = torch.outer(widths, scales).flatten()
        h = torch.outer((widths * ratios).round(), scales).flatten()
        return torch.stack([-w, -h, w, h], dim=1) / 2
