# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Deformable convolution made of operators that ONNX files have."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from kdps.layers.tap_places import tap_places


def sampled_deform_conv2d(
    x: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """:func:`torchvision.ops.deform_conv2d`, without groups, by sampling all taps first.

    Args:
        x: (N, C, H, W) features.
        offsets: (N, 2 * taps, H', W') moves of the taps, y and x side by side, in cells.
        weight: (C', C, kernel height, kernel width).
        bias: (C',) or None.
        stride, padding, dilation: y and x.
        mask: (N, taps, H', W') weights of the taps; None: 1.

    Returns:
        (N, C', H', W').
    """
    (count, channels, height, width), (rows, columns) = x.shape, offsets.shape[-2:]
    y, x_places = tap_places(offsets, weight.shape[-2:], stride, padding, dilation)
    taps = y.shape[1]
    # In the coordinates of grid_sample, the map's border cells end at -1 and 1.
    grid = torch.stack([(2 * x_places + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    grid = grid.reshape(count, taps * rows, columns, 2)
    sampled = F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
    sampled = sampled.reshape(count, channels, taps, rows * columns)
    if mask is not None:
        sampled = sampled * mask.reshape(count, 1, taps, rows * columns)
    # Taps are channels now, so the rest is a convolution of one cell.
    flat = sampled.reshape(count, channels * taps, rows, columns)
    return F.conv2d(flat, weight.reshape(len(weight), -1, 1, 1), bias)
