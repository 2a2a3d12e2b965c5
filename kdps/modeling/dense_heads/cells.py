# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The cells of a feature map: where they are in the image and whom they find."""

from __future__ import annotations

import torch
from detectron2.structures import Boxes, pairwise_point_box_distance


class CellGrid:
    """Cells of one feature map, row by row, each the square of pixels that it stands for.

    Attributes:
        height, width: rows and columns.
        stride: pixels of the network input per cell.
    """

    def __init__(self, height: int, width: int, stride: int) -> None:
        self.height, self.width, self.stride = height, width, stride

    def boxes(self, device: torch.device) -> torch.Tensor:
        """(H * W, 4) XYXY pixels of the network input; their centres are FCOS's points."""
        x = torch.arange(self.width, device=device).float().expand(self.height, -1)
        y = torch.arange(self.height, device=device).float()[:, None].expand(-1, self.width)
        return torch.stack([x, y, x + 1, y + 1], dim=2).flatten(0, 1) * self.stride

    def covered(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns that an image of this height and width reaches; the rest is padding.

        They may be more than the map has, if the backbone rounds down; a slice does not mind.

        They are tensors if the size is one, as it is for exporters.
        """
        height, width = size
        # math.ceil would leave a fixed number in an exported file.
        return (height + self.stride - 1) // self.stride, (width + self.stride - 1) // self.stride

    def index_of(self, points: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Cells that hold given points.

        Args:
            points: (R, 2) x and y in pixels of the network input; one outside of the image is
                taken to its border.
            size: height and width of the image.

        Returns:
            (R,) int64 indices of cells.
        """
        rows, columns = self.covered(size)
        cells = (points / self.stride).floor().long()
        x = cells[:, 0].clamp(0, min(columns, self.width) - 1)
        y = cells[:, 1].clamp(0, min(rows, self.height) - 1)
        return y * self.width + x


def match_cells(cells: torch.Tensor, boxes: Boxes, radius: float) -> torch.Tensor:
    """Which box each cell has to find: FCOS's rule with centre sampling, on one feature map.

    The point of the cell lies in the box, and nearer to the box's centre than ``radius`` strides on
    both axes. Of several such boxes it is the one of the smallest area. "FCOS: A Simple and Strong
    Anchor-Free Object Detector" (Tian et al., 2020), section 2.2.

    Args:
        cells: (R, 4) boxes of cells (see :meth:`CellGrid.boxes`).
        boxes: M boxes in the same pixels.
        radius: in strides.

    Returns:
        (R,) int64 indices of boxes, -1 for the background.
    """
    if len(boxes) == 0:
        return torch.full((len(cells),), -1, dtype=torch.int64, device=cells.device)
    points = (cells[:, :2] + cells[:, 2:]) / 2
    strides = cells[:, 2] - cells[:, 0]
    off_centre = (points[:, None] - boxes.get_centers()[None]).abs().amax(dim=2)
    inside = pairwise_point_box_distance(points, boxes).amin(dim=2) > 0
    finds = inside & (off_centre < radius * strides[:, None])
    areas = boxes.area().expand(len(cells), -1).masked_fill(~finds, torch.inf)
    area, index = areas.min(dim=1)
    return index.masked_fill(area.isinf(), -1)
