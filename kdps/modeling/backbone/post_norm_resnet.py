# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The ResNet of OIM-Net, whose blocks normalise after the addition."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import ResNet
from fvcore.nn.weight_init import c2_msra_fill
from torch import nn
from torch.nn import functional as F

from kdps.errors import KdpsError
from kdps.modeling.backbone.resnet import freeze, head_norm

_BLOCKS = {"res2": 3, "res3": 4, "res4": 6, "res5": 3}


class PostNormStem(CNNBlockBase):
    """7 x 7 convolution and maximum, each of stride 2.

    As Caffe's, the maximum pads nothing, and the last window may reach beyond the border.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__(in_channels, out_channels, stride=4)
        self.conv1 = _convolution(in_channels, out_channels, 7, stride=2, norm=norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu_(self.conv1(x))
        return F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)


class PostNormBottleneck(CNNBlockBase):
    """A bottleneck whose last norm follows the addition; its convolutions have biases.

    That norm scales the shortcut as well, so that no block of Detectron2's computes the same.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        norm: str = "BN",
    ) -> None:
        """
        Args:
            in_channels, out_channels: of the block; where they differ, the shortcut projects.
            bottleneck_channels: of the 3 x 3 convolution, which has the stride.
            stride: of the block.
            norm: see :func:`detectron2.layers.get_norm`.
        """
        super().__init__(in_channels, out_channels, stride)
        width = bottleneck_channels
        self.conv1 = _convolution(in_channels, width, 1, norm=norm)
        self.conv2 = _convolution(width, width, 3, stride=stride, norm=norm)
        self.conv3 = _convolution(width, out_channels, 1)
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = _convolution(in_channels, out_channels, 1, stride=stride)
        self.norm = get_norm(norm, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu_(self.conv1(x))
        out = F.relu_(self.conv2(out))
        out = self.conv3(out)
        out = out + (x if self.shortcut is None else self.shortcut(x))
        return F.relu_(self.norm(out))


@BACKBONE_REGISTRY.register()
def build_post_norm_resnet(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Stem, res2, res3 and the first blocks of res4, the trunk of OIM-Net.

    ``MODEL.POST_NORM_RESNET.RES4_TRUNK_BLOCKS`` blocks of res4 are in the trunk; the box head has
    the others and res5.

    Raises:
        KdpsError: the ResNet in the config is not of 50 layers, or the trunk ends before or after
            res4.
    """
    resnets = cfg.MODEL.RESNETS
    if resnets.DEPTH != 50:
        raise KdpsError(
            f"MODEL.RESNETS.DEPTH: build_post_norm_resnet has 50 layers, not {resnets.DEPTH}"
        )
    stem_channels = resnets.STEM_OUT_CHANNELS
    stem = PostNormStem(input_shape.channels, stem_channels, resnets.NORM)
    trunk = cfg.MODEL.POST_NORM_RESNET.RES4_TRUNK_BLOCKS
    if not 1 <= trunk <= _BLOCKS["res4"]:
        raise KdpsError(
            f"MODEL.POST_NORM_RESNET.RES4_TRUNK_BLOCKS: {trunk} is outside 1 to {_BLOCKS['res4']}"
        )
    stages = [
        _make_stage(cfg, "res2", stem_channels, stride=1, norm=resnets.NORM),
        _make_stage(cfg, "res3", _channels(cfg, "res2"), stride=2, norm=resnets.NORM),
        _make_stage(cfg, "res4", _channels(cfg, "res3"), stride=2, norm=resnets.NORM)[:trunk],
    ]
    backbone = ResNet(stem, stages, out_features=resnets.OUT_FEATURES)
    freeze(backbone.stem, cfg.MODEL.BACKBONE.FREEZE)
    return backbone


def build_post_norm_res4_rest(cfg: CfgNode) -> nn.Sequential:
    """The blocks of res4 that :func:`build_post_norm_resnet` leaves to the box head."""
    stage = _make_stage(cfg, "res4", _channels(cfg, "res3"), stride=2, norm=head_norm(cfg))
    return nn.Sequential(*stage[cfg.MODEL.POST_NORM_RESNET.RES4_TRUNK_BLOCKS :])


def build_post_norm_res5(cfg: CfgNode, in_channels: int) -> tuple[nn.Sequential, int]:
    """The last stage, of stride 2, and the number of its output channels."""
    stage = _make_stage(cfg, "res5", in_channels, stride=2, norm=head_norm(cfg))
    return nn.Sequential(*stage), _channels(cfg, "res5")


def _channels(cfg: CfgNode, stage: str) -> int:
    return cfg.MODEL.RESNETS.RES2_OUT_CHANNELS * 2 ** (int(stage[-1]) - 2)


def _make_stage(
    cfg: CfgNode, stage: str, in_channels: int, stride: int, norm: str
) -> list[nn.Module]:
    blocks = _BLOCKS[stage]
    return ResNet.make_stage(
        PostNormBottleneck,
        blocks,
        stride_per_block=[stride] + [1] * (blocks - 1),
        in_channels=in_channels,
        out_channels=_channels(cfg, stage),
        bottleneck_channels=cfg.MODEL.RESNETS.WIDTH_PER_GROUP * 2 ** (int(stage[-1]) - 2),
        norm=norm,
    )


def _convolution(
    in_channels: int, out_channels: int, size: int, stride: int = 1, norm: str = ""
) -> Conv2d:
    layer = Conv2d(
        in_channels,
        out_channels,
        kernel_size=size,
        stride=stride,
        padding=size // 2,
        norm=get_norm(norm, out_channels),
    )
    c2_msra_fill(layer)
    return layer
