# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Where a deformable convolution looks."""

from __future__ import annotations

import torch


def tap_places(
    offsets: torch.Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the taps of a deformable convolution lie.

    Args:
        offsets: (N, 2 * taps, H', W') moves of the taps, y and x side by side, in cells.
        kernel, stride, padding, dilation: y and x.

    Returns:
        (N, taps, H', W') y and x in cells of the input map, whose first cell is at 0.
    """
    count, _, rows, columns = offsets.shape

    def places(size: int, axis: int) -> torch.Tensor:
        """Of a tap without a move, on an axis: (positions in the kernel, output cells)."""
        steps = torch.arange(kernel[axis], device=offsets.device) * dilation[axis]
        cells = torch.arange(size, device=offsets.device) * stride[axis] - padding[axis]
        return cells + steps[:, None]

    moves = offsets.reshape(count, kernel[0] * kernel[1], 2, rows, columns)
    y = places(rows, 0).repeat_interleave(kernel[1], dim=0)[:, :, None]
    x = places(columns, 1).repeat(kernel[0], 1)[:, None, :]
    return moves[:, :, 0] + y, moves[:, :, 1] + x
