# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Per-region features: the last stage of a network applied to pooled regions."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_BOX_HEAD_REGISTRY
from torch import nn

from kdps.modeling.backbone import (
    StageBuilder,
    build_head_stage,
    build_post_norm_res4_rest,
    build_post_norm_res5,
    build_tiny_head_stage,
)

# Values of MODEL.ROI_BOX_HEAD.REGION_POOL: what a region is described by.
REGION_POOLS = {"max": torch.amax, "average": torch.mean}


class RegionBoxHead(nn.Module):
    """A box head that describes a region by two features, before and after its own layers.

    Attributes:
        input_channels: channels of "res4", those of a pooled region.
        output_channels: channels of "res5".
    """

    input_channels: int
    output_channels: int

    @property
    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels of each feature that :meth:`forward` returns."""
        return {
            "res4": ShapeSpec(channels=self.input_channels),
            "res5": ShapeSpec(channels=self.output_channels),
        }


class _StageBoxHead(RegionBoxHead):
    build_stage: StageBuilder

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        super().__init__()
        self.pool = REGION_POOLS[cfg.MODEL.ROI_BOX_HEAD.REGION_POOL]
        self.input_channels = input_shape.channels
        self.res5, self.output_channels = type(self).build_stage(cfg, input_shape.channels)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Describe pooled regions.

        Args:
            x: (R, C, h, w) pooled regions of the shared feature map.

        Returns:
            "res4": (R, C) maximum (or mean) over each region; "res5": (R, C') the same after the
            stage.
        """
        return {name: self.pool(cells, dim=(2, 3)) for name, cells in self.maps(x).items()}

    def maps(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """What :meth:`forward` takes the maximum or mean of: (R, C, h, w) and (R, C', h', w')."""
        return {"res4": x, "res5": self.res5(x)}


@ROI_BOX_HEAD_REGISTRY.register()
class Res5BoxHead(_StageBoxHead):
    """The last stage of the backbone in the config: res5 of a ResNet (NAE, SeqNet)."""

    build_stage = staticmethod(build_head_stage)


@ROI_BOX_HEAD_REGISTRY.register()
class TinyBoxHead(_StageBoxHead):
    """The head stage of ``MODEL.TINY_RESNET``."""

    build_stage = staticmethod(build_tiny_head_stage)


@ROI_BOX_HEAD_REGISTRY.register()
class PostNormBoxHead(_StageBoxHead):
    """The blocks of res4 that ``build_post_norm_resnet`` leaves out, and res5 (OIM-Net)."""

    build_stage = staticmethod(build_post_norm_res5)

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        super().__init__(cfg, input_shape)
        self.res4 = build_post_norm_res4_rest(cfg)

    def maps(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """As of the other heads; "res4" is the region after all of res4."""
        return super().maps(self.res4(x))
