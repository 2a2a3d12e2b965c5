# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Per-region features: the last ResNet stage applied to pooled regions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_BOX_HEAD_REGISTRY
from torch import nn

from kdps.modeling.backbone import build_res5_stage, build_tiny_head_stage

StageBuilder = Callable[[CfgNode, int], tuple[nn.Sequential, int]]


class _StageBoxHead(nn.Module):
    build_stage: StageBuilder

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        super().__init__()
        self.input_channels = input_shape.channels
        self.res5, self.output_channels = type(self).build_stage(cfg, input_shape.channels)

    @property
    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels of each feature that :meth:`forward` returns."""
        return {
            "res4": ShapeSpec(channels=self.input_channels),
            "res5": ShapeSpec(channels=self.output_channels),
        }

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Describe pooled regions.

        Args:
            x: (R, C, h, w) pooled regions of the shared feature map.

        Returns:
            "res4": (R, C) maximum over each region; "res5": (R, C') the same after the stage.
        """
        return {"res4": x.amax(dim=(2, 3)), "res5": self.res5(x).amax(dim=(2, 3))}


@ROI_BOX_HEAD_REGISTRY.register()
class Res5BoxHead(_StageBoxHead):
    """res5 of the ResNet in the config (NAE, SeqNet)."""

    build_stage = staticmethod(build_res5_stage)


@ROI_BOX_HEAD_REGISTRY.register()
class TinyBoxHead(_StageBoxHead):
    """The head stage of ``MODEL.TINY_RESNET``."""

    build_stage = staticmethod(build_tiny_head_stage)
