# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Per-region features: COAT's transformer in place of the last ResNet stage."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_BOX_HEAD_REGISTRY
from torch import nn

from kdps.errors import KdpsError
from kdps.layers.occluded_attention import Stripe, draw_stripe, exchange
from kdps.layers.token_transformer import TokenTransformer
from kdps.modeling.roi_heads.box_head import RegionBoxHead


@ROI_BOX_HEAD_REGISTRY.register()
class TransformerBoxHead(RegionBoxHead):
    """The head of COAT's first stage, without occlusion.

    "Cascade Transformers for End-to-End Person Search" (Yu et al., CVPR 2022). The pooled region is
    reduced, its channels are shared out among transformers with tokens of different sizes, and
    their outputs, with a shortcut around all of them, are expanded.
    """

    @configurable
    def __init__(
        self,
        *,
        input_channels: int,
        dim: int,
        output_channels: int,
        token_kernels: tuple[int, ...],
        num_layers: int,
        num_heads: int,
        ffn_ratio: int,
    ) -> None:
        """
        Args:
            input_channels: channels of a pooled region.
            dim: channels of all transformers together; tokens have half as many channels as their
                transformer.
            output_channels: channels of the output.
            token_kernels: side of a token's patch (odd), one for each transformer.
            num_layers: encoder layers of each transformer.
            num_heads: attention heads.
            ffn_ratio: hidden channels of the feed-forward networks over those of a token.

        Raises:
            KdpsError: a side of a patch is even, or the channels cannot be shared out.
        """
        super().__init__()
        even = [kernel for kernel in token_kernels if kernel % 2 == 0]
        if even or not token_kernels:
            raise KdpsError(
                f"MODEL.COAT.TOKEN_KERNELS: {list(token_kernels)} must be odd numbers, at least one"
            )
        channels = dim // len(token_kernels)
        token_dim = channels // 2
        if channels * len(token_kernels) != dim or token_dim % num_heads or channels % 2:
            raise KdpsError(
                f"MODEL.COAT.DIM: {dim} channels cannot be shared out among {len(token_kernels)} "
                f"transformers with tokens of half their channels and {num_heads} heads"
            )
        self.input_channels = input_channels
        self.output_channels = output_channels
        self.reduce = nn.Conv2d(input_channels, dim, 1, bias=False)
        self.transformers = nn.ModuleList(
            TokenTransformer(
                channels=channels,
                token_dim=token_dim,
                kernel_size=kernel,
                num_layers=num_layers,
                num_heads=num_heads,
                ffn_dim=ffn_ratio * token_dim,
            )
            for kernel in token_kernels
        )
        self.expand = nn.Conv2d(dim, output_channels, 1, bias=False)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict:
        coat = cfg.MODEL.COAT
        return {
            "input_channels": input_shape.channels,
            "dim": coat.DIM,
            "output_channels": coat.OUTPUT_CHANNELS,
            "token_kernels": coat.TOKEN_KERNELS,
            "num_layers": coat.NUM_LAYERS,
            "num_heads": coat.NUM_HEADS,
            "ffn_ratio": coat.FFN_RATIO,
        }

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Describe pooled regions.

        Args:
            x: (R, C, h, w) pooled regions of the shared feature map.

        Returns:
            "res4": (R, C) maximum over each region; "res5": (R, C') the same after the
            transformers, which stand where other heads have res5.
        """
        return {"res4": x.amax(dim=(2, 3)), "res5": self._transform(x).amax(dim=(2, 3))}

    def _transform(self, x: torch.Tensor, stripe: Stripe | None = None) -> torch.Tensor:
        reduced = self.reduce(x)
        shares = reduced.chunk(len(self.transformers), dim=1)
        mixed = [t(share, stripe) for t, share in zip(self.transformers, shares, strict=True)]
        return self.expand(reduced + torch.cat(mixed, dim=1))


@ROI_BOX_HEAD_REGISTRY.register()
class OccludedTransformerBoxHead(TransformerBoxHead):
    """The head of COAT's later stages: in training, regions occlude one another.

    Stripes of tokens are exchanged between the regions of the batch, the same in all transformers.
    The feature from before the transformers has a convolution of its own, behind which it exchanges
    another stripe.
    """

    @configurable
    def __init__(self, *, stripe_width: int, **kwargs) -> None:
        """
        Args:
            stripe_width: cells across an exchanged stripe.
            kwargs: see :class:`TransformerBoxHead`.
        """
        super().__init__(**kwargs)
        self.stripe_width = stripe_width
        self.bypass = nn.Conv2d(self.input_channels, self.input_channels, 1, bias=False)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict:
        sides = (input_shape.height, input_shape.width)
        width = cfg.MODEL.COAT.STRIPE_WIDTH
        if not 1 <= width <= min(sides):
            raise KdpsError(
                f"MODEL.COAT.STRIPE_WIDTH: {width} is outside 1 to {min(sides)}, the shorter side "
                "of a pooled region"
            )
        return {**super().from_config(cfg, input_shape), "stripe_width": width}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """See :meth:`TransformerBoxHead.forward`; "res4" is after the convolution of the bypass."""
        bypassed = self.bypass(x)
        stripe = None
        if self.training:
            stripe = draw_stripe(x, self.stripe_width)
            bypassed = exchange(bypassed, draw_stripe(bypassed, self.stripe_width))
        return {
            "res4": bypassed.amax(dim=(2, 3)),
            "res5": self._transform(x, stripe).amax(dim=(2, 3)),
        }
