# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""AlignPS's neck: aligned feature aggregation."""

from __future__ import annotations

import math

import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import Backbone
from fvcore.nn.weight_init import c2_xavier_fill
from torch import nn
from torch.nn import functional as F

from kdps.errors import KdpsError
from kdps.layers.deformable_conv import DeformableConv


class AlignedFeatureAggregation(Backbone):
    """Feature maps of a network, joined from coarse to fine.

    "Anchor-Free Person Search" (Yan et al., CVPR 2021), section 3.3: where an FPN has 1 x 1 and 3 x
    3 convolutions, here both are deformable ones of 3 x 3, and coarser maps are concatenated
    instead of added.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: list[str],
        out_channels: int,
        num_levels: int,
        deformable: bool = True,
    ) -> None:
        """
        Args:
            bottom_up: the network.
            in_features: names of its maps to join, from fine to coarse.
            out_channels: of the laterals and of the output maps.
            num_levels: output maps in training, at least 1. Those beyond ``in_features`` are
                each half as large as the one before.
            deformable: False makes laterals and outputs plain convolutions.
        """
        super().__init__()
        shapes = bottom_up.output_shape()
        self.bottom_up = bottom_up
        self.in_features = list(in_features)
        count = len(in_features)
        make = _deformable if deformable else _plain
        self.laterals = nn.ModuleList(
            make(shapes[name].channels, out_channels) for name in in_features
        )
        self.outputs = nn.ModuleList(
            make((count - i) * out_channels, out_channels) for i in range(min(count, num_levels))
        )
        self.extra = nn.ModuleList(
            Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
            for _ in range(count, num_levels)
        )
        for layer in self.extra:
            c2_xavier_fill(layer)
        strides = [shapes[name].stride for name in in_features]
        self._size_divisibility = strides[-1]
        strides += [strides[-1] * 2 ** (i + 1) for i in range(len(self.extra))]
        self.levels = {
            f"p{int(math.log2(stride))}": ShapeSpec(channels=out_channels, stride=stride)
            for stride in strides[:num_levels]
        }

    @property
    def size_divisibility(self) -> int:
        """Sides of inputs should be multiples of this."""
        return self._size_divisibility

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Shapes of the maps of the network ("res4") and of the joined ones ("p3")."""
        return {**self.bottom_up.output_shape(), **self.levels}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Args:
            x: (N, 3, H, W) images.

        Returns:
            the maps of the network and the joined ones by name. Outside of training mode, of the
            joined ones only the finest, as AlignPS needs no other.
        """
        features = self.bottom_up(x)
        joined = self.join_laterals(
            [
                lateral(features[name])
                for name, lateral in zip(self.in_features, self.laterals, strict=True)
            ]
        )
        count = len(self.levels) if self.training else 1
        maps = [output(own) for output, own in zip(self.outputs[:count], joined, strict=False)]
        for i, layer in enumerate(self.extra[: max(count - len(maps), 0)]):
            # As published: no activation between the last joined map and the first of these.
            maps.append(layer(F.relu(maps[-1]) if i else maps[-1]))
        return {**features, **dict(zip(self.levels, maps, strict=False))}

    @staticmethod
    def join_laterals(laterals: list[torch.Tensor]) -> list[torch.Tensor]:
        """Append to each map the next coarser one, joined already, enlarged by nearest neighbour.

        Args:
            laterals: (N, C, H, W) maps from fine to coarse.

        Returns:
            maps of (count - i) * C channels.
        """
        joined = laterals[-1:]
        for own in laterals[-2::-1]:
            coarse = F.interpolate(joined[0], size=own.shape[-2:], mode="nearest")
            joined.insert(0, torch.cat([own, coarse], dim=1))
        return joined


def _plain(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)


def _deformable(in_channels: int, out_channels: int) -> DeformableConv:
    return DeformableConv(_plain(in_channels, out_channels))


@BACKBONE_REGISTRY.register()
def build_aligned_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> AlignedFeatureAggregation:
    """:class:`AlignedFeatureAggregation` on the backbone ``MODEL.AFA.BOTTOM_UP``.

    It joins the maps ``MODEL.FPN.IN_FEATURES``.

    Raises:
        KdpsError: the backbone does not have one of these maps.
    """
    bottom_up = BACKBONE_REGISTRY.get(cfg.MODEL.AFA.BOTTOM_UP)(cfg, input_shape)
    in_features = cfg.MODEL.FPN.IN_FEATURES
    known = bottom_up.output_shape()
    unknown = [name for name in in_features if name not in known]
    if unknown or not in_features:
        raise KdpsError(
            f"MODEL.FPN.IN_FEATURES: {in_features} must be some of the maps of "
            f"{cfg.MODEL.AFA.BOTTOM_UP} ({', '.join(known)})"
        )
    return AlignedFeatureAggregation(
        bottom_up,
        in_features,
        cfg.MODEL.FPN.OUT_CHANNELS,
        cfg.MODEL.AFA.NUM_LEVELS,
        cfg.MODEL.AFA.DEFORMABLE,
    )
