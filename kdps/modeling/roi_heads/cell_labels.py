# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Which cells of a region lie on a person (NAE+)."""

from __future__ import annotations

import torch


@torch.no_grad()
def cell_labels(regions: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """How much of each cell of a region is covered by the box that the region is matched with.

    As in the public code: every pixel of the region that the box touches, and the one after the
    last, counts; this mask is resized to the cells, bilinearly and without anti-aliasing.

    Args:
        regions: (R, 4) XYXY pixels.
        boxes: (R, 4) XYXY pixels, one for each region.
        size: cells (h, w) of a region.

    Returns:
        (R, h, w) labels between 0 and 1, zero where box and region do not overlap.
    """
    # The mask is a rectangle, so that rows and columns can be resized apart.
    columns = _covered(regions[:, 0::2], boxes[:, 0::2], size[1])
    rows = _covered(regions[:, 1::2], boxes[:, 1::2], size[0])
    return rows[:, :, None] * columns[:, None, :]


def _covered(regions: torch.Tensor, boxes: torch.Tensor, cells: int) -> torch.Tensor:
    """(R, cells) shares along one axis, of (R, 2) intervals."""
    start, end = regions[:, :1], regions[:, 1:]
    low = torch.maximum(start, boxes[:, :1])
    high = torch.minimum(end, boxes[:, 1:])
    first, last = (low - start).floor(), (high - start).ceil()
    pixels = (end - start).ceil()
    centres = torch.arange(cells, device=regions.device) + 0.5
    places = (centres * pixels / cells - 0.5).clamp(min=0)
    before = places.floor()
    after = torch.minimum(before + 1, pixels - 1)
    share = places - before

    def inside(pixel: torch.Tensor) -> torch.Tensor:
        return ((pixel >= first) & (pixel <= last)).to(regions.dtype)

    return (inside(before) * (1 - share) + inside(after) * share) * (low < high)
