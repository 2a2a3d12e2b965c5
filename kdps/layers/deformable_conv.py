# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Deformable convolution without Detectron2's compiled operators."""

from __future__ import annotations

import torch
from torch import nn

from kdps.layers.operators import deform_convolution


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
        convolve = deform_convolution(
            x.device.type, gradients=torch.is_grad_enabled(), plain=self.plain
        )
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
