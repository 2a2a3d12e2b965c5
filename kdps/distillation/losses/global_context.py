# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Global context of a feature map."""

from __future__ import annotations

import torch
from torch import nn


class GlobalContext(nn.Module):
    """What the whole map says to each of its cells: the context of GCNet.

    "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond" (Cao et al., 2019),
    section 3.3, to be added to all cells. The last layer starts at zero, so that at first nothing
    is. The attention has no bias, as its softmax would cancel it.
    """

    def __init__(self, channels: int, ratio: int = 2) -> None:
        """
        Args:
            channels: of the map.
            ratio: channels over those of the bottleneck.
        """
        super().__init__()
        hidden = max(channels // ratio, 1)
        self.attention = nn.Linear(channels, 1, bias=False)
        self.transform = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, channels),
        )
        nn.init.zeros_(self.transform[-1].weight)
        nn.init.zeros_(self.transform[-1].bias)

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: (N, C, H, W) map.
            valid: (N, H, W) bool, the cells that count.

        Returns:
            (N, C) rows.
        """
        cells = x.flatten(2)
        # A batch of products: one of all images would copy the maps, cells before channels.
        weight = self.attention.weight.expand(len(x), 1, -1)
        logits = (weight @ cells).masked_fill(~valid.flatten(1)[:, None], -torch.inf)
        return self.transform((logits.softmax(dim=2) @ cells.mT)[:, 0])
