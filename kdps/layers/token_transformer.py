# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A transformer on the tokens of a feature map, for one size of token."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from kdps.layers.occluded_attention import Stripe, exchange
from kdps.layers.token_encoder import TokenEncoderLayer


class FoldTokens(nn.Module):
    """Make a feature map of tokens: each becomes a patch, and overlapping patches are added.

    That is ``nn.Fold`` (stride 1) of a linear layer, computed as a transposed convolution: the
    patches of all tokens, k * k times the map, are never in memory at once.
    """

    def __init__(self, token_dim: int, channels: int, kernel_size: int) -> None:
        """
        Args:
            token_dim: channels of a token.
            channels: channels C of the map.
            kernel_size: side k of a patch, odd.
        """
        super().__init__()
        self.channels = channels
        self.kernel_size = kernel_size
        # One row for each value of a patch, channels first.
        self.linear = nn.Linear(token_dim, channels * kernel_size**2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(R, token_dim, h, w) tokens in their places to (R, C, h, w)."""
        k, (h, w) = self.kernel_size, tokens.shape[2:]
        weight = self.linear.weight.T.reshape(-1, self.channels, k, k)
        # The same for all regions, but not for all cells: fewer patches overlap at the border.
        bias = F.fold(self.linear.bias[:, None].expand(-1, h * w), (h, w), k, padding=k // 2)
        folded = F.conv_transpose2d(tokens, weight, padding=k // 2)
        # With mixed precision the convolution is in half, and its sum with a float would not be.
        return folded + bias.to(folded.dtype)


class TokenTransformer(nn.Module):
    """Patches to tokens, encoder layers, and back to a feature map, with a shortcut around it all.

    One branch of the transformer of "Cascade Transformers for End-to-End Person Search" (Yu et al.,
    CVPR 2022). Every cell of the map is the centre of one token. There is no position encoding, as
    published.
    """

    def __init__(
        self,
        *,
        channels: int,
        token_dim: int,
        kernel_size: int,
        num_layers: int,
        num_heads: int,
        ffn_dim: int,
    ) -> None:
        """
        Args:
            channels: channels of the feature map.
            token_dim: channels of a token.
            kernel_size: side of the patch that a token describes, odd.
            num_layers: encoder layers.
            num_heads: see :class:`TokenEncoderLayer`.
            ffn_dim: see :class:`TokenEncoderLayer`.
        """
        super().__init__()
        self.to_tokens = nn.Conv2d(channels, token_dim, kernel_size, padding=kernel_size // 2)
        self.encoder = nn.Sequential(
            *(TokenEncoderLayer(token_dim, num_heads, ffn_dim) for _ in range(num_layers))
        )
        self.from_tokens = FoldTokens(token_dim, channels, kernel_size)

    def forward(self, regions: torch.Tensor, stripe: Stripe | None = None) -> torch.Tensor:
        """
        Args:
            regions: (R, C, h, w) feature maps.
            stripe: tokens that regions exchange before they attend to one another, if any.

        Returns:
            Feature maps of the same shape.
        """
        tokens = self.to_tokens(regions)
        if stripe is not None:
            tokens = exchange(tokens, stripe)
        encoded = self.encoder(tokens.flatten(2).transpose(1, 2))
        return regions + self.from_tokens(encoded.transpose(1, 2).reshape(tokens.shape))
