# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The encoder layer that COAT applies to the tokens of a region."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """Multi-head attention of the tokens of each region to one another.

    "Attention Is All You Need" (Vaswani et al., NeurIPS 2017), section 3.2. PyTorch's own
    ``nn.MultiheadAttention`` packs queries, keys and values into one weight; published weights keep
    them apart.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        """
        Args:
            dim: channels of a token.
            num_heads: attention heads, which share the channels out evenly.
        """
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(R, L, dim) tokens of R regions to as many new ones."""
        # (R, heads, L, dim / heads)
        query, key, value = (
            projector(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for projector in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.output(attended.transpose(1, 2).flatten(2))


class TokenEncoderLayer(nn.Module):
    """Attention and a feed-forward network, each with a shortcut.

    As in COAT's code the shortcut around the attention starts behind its norm, not before it as in
    other pre-norm transformers (and in ``nn.TransformerEncoderLayer``). No dropout, as published.
    """

    def __init__(self, dim: int, num_heads: int, ffn_dim: int) -> None:
        """
        Args:
            dim: channels of a token.
            num_heads: see :class:`SelfAttention`.
            ffn_dim: hidden channels of the feed-forward network.
        """
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn_dim), nn.ReLU(), nn.Linear(ffn_dim, dim))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(R, L, dim) tokens of R regions to as many new ones."""
        tokens = self.norm1(tokens)
        tokens = tokens + self.attention(tokens)
        return tokens + self.ffn(self.norm2(tokens))
