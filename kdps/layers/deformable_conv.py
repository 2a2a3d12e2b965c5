# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Deformable convolution without Detectron2's compiled operators."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d


class DeformableConv(nn.Module):
    """A convolution whose taps are moved by offsets that another convolution computes.

    "Deformable Convolutional Networks" (Dai et al., ICCV 2017), section 2.1. A modulated one also
    weights its taps: "Deformable ConvNets v2" (Zhu et al., CVPR 2019), section 3.2. Offsets start
    at zero and the weights of taps at one half, as in these papers.
    """

    def __init__(self, conv: nn.Conv2d, *, modulated: bool = False, deform_groups: int = 1) -> None:
        """
        Args:
            conv: what to make deformable; its parameters become those of this module, and its
                ``norm``, if it is one of Detectron2's, is applied to the output.
            modulated: weight the taps.
            deform_groups: groups of input channels, each with offsets of its own.
        """
        super().__init__()
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation
        self.weight, self.bias = conv.weight, conv.bias
        self.norm = getattr(conv, "norm", None)
        self.plain = conv.groups == deform_groups == 1
        taps = deform_groups * conv.kernel_size[0] * conv.kernel_size[1]
        self.num_offsets = 2 * taps
        # Offsets (y and x of a tap side by side), then the logits of the taps' weights.
        self.offset = nn.Conv2d(
            conv.in_channels,
            (3 if modulated else 2) * taps,
            conv.kernel_size,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
        )
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) features to (N, C', H', W') ones, float32 in mixed precision."""
        moves = self.offset(x)
        # torchvision's gradients take three to four times as long on a CPU.
        on_cpu = x.device.type == "cpu" and torch.is_grad_enabled() and self.plain
        convolve = sampled_deform_conv2d if on_cpu else deform_conv2d
        # Half-precision offsets of large maps would be off by parts of a cell.
        with torch.autocast(x.device.type, enabled=False):
            offsets, weights = moves.float().tensor_split([self.num_offsets], dim=1)
            x = convolve(
                x.float(),
                offsets,
                self.weight,
                self.bias,
                self.stride,
                self.padding,
                self.dilation,
                mask=weights.sigmoid() if weights.shape[1] else None,
            )
        return x if self.norm is None else self.norm(x)


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
    """
    (count, channels, height, width), (rows, columns) = x.shape, offsets.shape[-2:]
    taps = weight.shape[2] * weight.shape[3]

    def places(size: int, axis: int) -> torch.Tensor:
        """Where a tap without a move lies on an axis: (output cells, positions in the kernel)."""
        kernel = torch.arange(weight.shape[2 + axis], device=x.device) * dilation[axis]
        return torch.arange(size, device=x.device)[:, None] * stride[axis] - padding[axis] + kernel

    y = places(rows, 0).T.repeat_interleave(weight.shape[3], dim=0)[:, :, None]
    x_places = places(columns, 1).T.repeat(weight.shape[2], 1)[:, None, :]
    moves = offsets.reshape(count, taps, 2, rows, columns)
    # In the coordinates of grid_sample, the map's border cells end at -1 and 1.
    grid_y = (2 * (moves[:, :, 0] + y) + 1) / height - 1
    grid_x = (2 * (moves[:, :, 1] + x_places) + 1) / width - 1
    grid = torch.stack([grid_x, grid_y], dim=-1).reshape(count, taps * rows, columns, 2)
    sampled = F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
    sampled = sampled.reshape(count, channels, taps, rows * columns)
    if mask is not None:
        sampled = sampled * mask.reshape(count, 1, taps, rows * columns)
    # Taps are channels now, so the rest is a convolution of one cell.
    flat = sampled.reshape(count, channels * taps, rows, columns)
    return F.conv2d(flat, weight.reshape(len(weight), -1, 1, 1), bias)
