# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Token exchange: what makes COAT's attention an occluded one.

A stripe of each region's feature map is replaced by the same stripe of another region of the batch,
as if another person, or the background, stood in front: the occluded attention of "Cascade
Transformers for End-to-End Person Search" (Yu et al., CVPR 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Stripe:
    """Where regions are occluded and by whom.

    Attributes:
        partners: (R,) int64 permutation; region i gets the stripe of region ``partners[i]``.
        rows: rows of the feature map.
        columns: columns of the feature map.
    """

    partners: torch.Tensor
    rows: slice
    columns: slice


def draw_stripe(regions: torch.Tensor, width: int) -> Stripe:
    """Draw a stripe across the whole of either axis, and who occludes whom.

    The numbers come from torch's CPU generator, so that nothing waits for a GPU.

    Args:
        regions: (R, C, h, w) feature maps, of which only the shape and the device matter.
        width: cells across the stripe, at most the shorter side of a map.
    """
    count, _, height, columns = regions.shape
    across_columns = torch.rand(()).item() < 0.5
    side = columns if across_columns else height
    start = int(torch.randint(side - width + 1, ()).item())
    stripe, whole = slice(start, start + width), slice(None)
    return Stripe(
        partners=torch.randperm(count).to(regions.device),
        rows=whole if across_columns else stripe,
        columns=stripe if across_columns else whole,
    )


def exchange(regions: torch.Tensor, stripe: Stripe) -> torch.Tensor:
    """The regions with the stripe of their partners.

    Args:
        regions: (R, C, h, w) feature maps or maps of tokens.
        stripe: what to exchange.

    Returns:
        A new tensor of the same shape. Gradients follow the values to where they came from.
    """
    window = (slice(None), slice(None), stripe.rows, stripe.columns)
    occluded = regions.clone()
    occluded[window] = regions[window][stripe.partners]
    return occluded
