# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Deformable convolution that trains fast on a CPU."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from kdps.layers.tap_places import tap_places


def embedding_bag_deform_conv2d(
    x: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """:func:`torchvision.ops.deform_conv2d`, without groups, by weighting all cells first.

    Every cell is multiplied with the weights of every tap, which is one product of matrices. An
    output cell is then the weighted sum of 4 * taps rows of the result, which is what
    ``embedding_bag`` computes, along channels that lie side by side. In place of a map of sampled
    taps, N * H' * W' * taps * C numbers, one of weighted cells is kept for the backward pass, N *
    H * W * taps * C'. All tensors have one floating type; autocast has to be off, and shapes are
    not checked.

    Args are those of :func:`kdps.layers.sampled_deform_conv.sampled_deform_conv2d`.

    Returns:
        (N, C', H', W'), channels last in memory.
    """
    (count, channels, height, width), (rows, columns) = x.shape, offsets.shape[-2:]
    kernel = weight.shape[-2:]
    taps, outputs = kernel[0] * kernel[1], len(weight)
    y, x_places = tap_places(offsets, kernel, stride, padding, dilation)
    (top, y_shares), (left, x_shares) = _cells(y, height), _cells(x_places, width)
    # (upper or lower, left or right, N, taps, H', W'); below, a bag for each output cell.
    shares = y_shares[:, None] * x_shares
    if mask is not None:
        shares = shares * mask
    first = torch.arange(count, device=x.device)[:, None] * height * width * taps
    first = first + torch.arange(taps, device=x.device)
    places = (top[:, None] * width + left) * taps + first[:, :, None, None]
    places, shares = (
        values.permute(2, 4, 5, 3, 0, 1).reshape(count * rows * columns, 4 * taps)
        for values in (places, shares)
    )
    cells = x.permute(0, 2, 3, 1).reshape(-1, channels)
    weighted = cells @ weight.permute(1, 2, 3, 0).reshape(channels, -1)
    sums = F.embedding_bag(
        places, weighted.reshape(-1, outputs), per_sample_weights=shares, mode="sum"
    )
    if bias is not None:
        sums = sums + bias
    return sums.reshape(count, rows, columns, outputs).permute(0, 3, 1, 2)


def _cells(places: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The two cells that a place lies between on an axis, and their shares: 0 beyond the border."""
    low = places.detach().floor()
    part = places - low
    both = torch.stack([low, low + 1])
    inside = (both >= 0) & (both < size)
    shares = torch.stack([1 - part, part]) * inside
    # A training that has diverged gets shares, and a loss, that are not numbers.
    return both.clamp(0, size - 1).nan_to_num().long(), shares
