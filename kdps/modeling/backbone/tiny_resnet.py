# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A ResNet small enough to train on a CPU."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.resnet import BasicBlock
from fvcore.nn.weight_init import c2_msra_fill
from torch import nn
from torch.nn import functional as F

from kdps.errors import KdpsError
from kdps.modeling.backbone.resnet import deform_stages, freeze, head_norm


class PatchStem(CNNBlockBase):
    """One 7 x 7 convolution of stride 4.

    Detectron2's ``BasicStem`` computes at stride 2 and then pools: in a network as small as this
    the half-resolution maps would take a fifth of a CPU's time.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__(in_channels, out_channels, stride=4)
        self.conv1 = Conv2d(
            in_channels,
            out_channels,
            kernel_size=7,
            stride=4,
            padding=3,
            bias=False,
            norm=get_norm(norm, out_channels),
        )
        c2_msra_fill(self.conv1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu_(self.conv1(x))


@BACKBONE_REGISTRY.register()
def build_tiny_resnet(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """A stem of stride 4 and three stages (res2 to res4) of basic blocks.

    Widths, depths and strides are those of ``MODEL.TINY_RESNET``. Stages of
    ``MODEL.RESNETS.DEFORM_ON_PER_STAGE`` have deformable convolutions.

    Raises:
        KdpsError: not every stage has all three of them.
    """
    tiny = cfg.MODEL.TINY_RESNET
    if {len(tiny.CHANNELS), len(tiny.BLOCKS), len(tiny.STRIDES)} != {3}:
        raise KdpsError(
            "MODEL.TINY_RESNET.CHANNELS, BLOCKS and STRIDES must have 3 numbers each, one per stage"
        )
    stem = PatchStem(input_shape.channels, tiny.STEM_CHANNELS, cfg.MODEL.RESNETS.NORM)
    stages = []
    in_channels = tiny.STEM_CHANNELS
    norm = cfg.MODEL.RESNETS.NORM
    for width, blocks, stride in zip(tiny.CHANNELS, tiny.BLOCKS, tiny.STRIDES, strict=True):
        stages.append(_make_stage(in_channels, width, blocks, stride, norm))
        in_channels = width
    backbone = ResNet(stem, stages, out_features=cfg.MODEL.RESNETS.OUT_FEATURES)
    deform_stages(backbone, cfg.MODEL.RESNETS)
    freeze(backbone.stem, cfg.MODEL.BACKBONE.FREEZE)
    return backbone


def build_tiny_head_stage(cfg: CfgNode, in_channels: int) -> tuple[nn.Sequential, int]:
    """The stage that the heads apply to pooled regions, and the number of its output channels."""
    tiny = cfg.MODEL.TINY_RESNET
    stage = _make_stage(
        in_channels, tiny.HEAD_CHANNELS, tiny.HEAD_BLOCKS, tiny.HEAD_STRIDE, head_norm(cfg)
    )
    return nn.Sequential(*stage), tiny.HEAD_CHANNELS


def _make_stage(
    in_channels: int, out_channels: int, blocks: int, stride: int, norm: str
) -> list[nn.Module]:
    return ResNet.make_stage(
        BasicBlock,
        blocks,
        stride_per_block=[stride] + [1] * (blocks - 1),
        in_channels=in_channels,
        out_channels=out_channels,
        norm=norm,
    )
