# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Global context of a feature map."""

from __future__ import annotations

import torch
from torch import nn


class ContextBlock(nn.Module):
    """Adds to every cell what the whole map says: the block of GCNet.

    "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond" (Cao et al., 2019),
    section 3.3, added. The last layer starts at zero, so that at first the map is unchanged.
    """

    def __init__(self, channels: int, ratio: int = 2) -> None:
        """
        Args:
            channels: of the map.
            ratio: channels over those of the bottleneck.
        """
        super().__init__()
        hidden = max(channels // ratio, 1)
        self.attention = nn.Conv2d(channels, 1, 1)
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
        """
        logits = self.attention(x).flatten(1).masked_fill(~valid.flatten(1), -torch.inf)
        context = torch.einsum("ncl,nl->nc", x.flatten(2), logits.softmax(dim=1))
        return x + self.transform(context)[:, :, None, None]
