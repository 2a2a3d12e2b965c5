# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Where on a feature map people are, and where they are not."""

from __future__ import annotations

import torch
from detectron2.structures import Boxes

from kdps.distillation.losses.taps import valid_cells
from kdps.structures.distill_outputs import DistillOutputs


@torch.no_grad()
def person_masks(
    outputs: DistillOutputs, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of the cells of a map that lie on people, and of those that lie on nobody.

    "Focal and Global Knowledge Distillation for Detectors" (Yang et al., CVPR 2022), equations 2
    and 3: a cell on a person counts one by the number of cells that the person's box covers, the
    smallest box where there are several; a cell on nobody one by the number of such cells in its
    image. Cells of padding count nothing.

    Args:
        outputs: whose annotated boxes and image sizes.
        size: height and width of the map.

    Returns:
        two (N, H, W) float32 masks.
    """
    height, width = size
    valid = valid_cells(outputs, size)
    boxes = Boxes.cat(outputs.targets).tensor
    image = torch.cat(
        [torch.full((len(own),), i, device=valid.device) for i, own in enumerate(outputs.targets)]
    ).long()
    # First and last cell that a box touches; even the smallest one touches one.
    left, right = _span(boxes[:, 0], boxes[:, 2], outputs.padded_size[1], width)
    top, bottom = _span(boxes[:, 1], boxes[:, 3], outputs.padded_size[0], height)
    rows, columns = (
        torch.arange(height, device=boxes.device),
        torch.arange(width, device=boxes.device),
    )
    in_rows = (rows >= top[:, None]) & (rows <= bottom[:, None])
    in_columns = (columns >= left[:, None]) & (columns <= right[:, None])
    area = (right - left + 1) * (bottom - top + 1)
    covered = (in_rows[:, :, None] & in_columns[:, None, :]) / area[:, None, None]
    foreground = covered.new_zeros(valid.shape)
    foreground.scatter_reduce_(0, image[:, None, None].expand_as(covered), covered, "amax")
    foreground *= valid
    background = (foreground == 0) & valid
    count = background.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    return foreground, background / count


def _span(
    start: torch.Tensor, end: torch.Tensor, side: int, cells: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the first and last cell between two coordinates."""
    scale = cells / side
    first = (start * scale).floor().clamp(0, cells - 1)
    last = ((end * scale).ceil() - 1).clamp(0, cells - 1)
    return first, torch.maximum(first, last)
