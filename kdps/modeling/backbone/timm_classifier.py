# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""ConvNeXt and Swin of timm, split at stride 16."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from torch import nn
from torchvision.ops import Permute

from kdps.errors import KdpsError
from kdps.modeling.backbone.head_stage import register_head_stage
from kdps.modeling.backbone.resnet import freeze
from kdps.modeling.backbone.trunk import ClassifierTrunk
from kdps.utils.requirements import require_timm

_TRUNK_STAGES = 3


@dataclass(frozen=True)
class _Split:
    """A classifier in two parts, whose layers have the names that timm gives them.

    Attributes:
        stem: the first layers, also part of the trunk.
        trunk: from images to the map of stride 16, (N, C, H, W).
        head: from there to the features that timm pools, (N, C', H / 2, W / 2).
        trunk_channels, head_channels: of their outputs.
    """

    stem: nn.Module
    trunk: nn.Sequential
    head: nn.Sequential
    trunk_channels: int
    head_channels: int


@BACKBONE_REGISTRY.register()
def build_timm_classifier(cfg: CfgNode, input_shape: ShapeSpec) -> ClassifierTrunk:
    """The stages up to stride 16 of the network that ``MODEL.TIMM.NAME`` names.

    "A ConvNet for the 2020s" (Liu et al., CVPR 2022) or "Swin Transformer" (Liu et al., ICCV 2021).
    Their norms are layer norms, whatever ``MODEL.RESNETS.NORM`` says.

    Raises:
        KdpsError: timm is not installed, or the name is of no such network.
    """
    parts = _split(cfg, input_shape.channels)
    freeze(parts.stem, cfg.MODEL.BACKBONE.FREEZE)
    return ClassifierTrunk(parts.trunk, parts.trunk_channels)


@register_head_stage("build_timm_classifier")
def build_timm_stage(cfg: CfgNode, in_channels: int) -> tuple[nn.Sequential, int]:
    """The last stage, with the norm that ends a Swin.

    Args:
        in_channels: those of the trunk; the stage takes no others.
    """
    parts = _split(cfg, image_channels=3)
    return parts.head, parts.head_channels


def _split(cfg: CfgNode, image_channels: int) -> _Split:
    timm = require_timm()
    name = cfg.MODEL.TIMM.NAME
    options = {}
    if name.startswith("swin_"):
        # Images of any size: the masks of shifted windows are made for each.
        options = {"strict_img_size": False}
    if not name.startswith(("swin_", "convnext")) or not timm.is_model(name):
        raise KdpsError(
            f"MODEL.TIMM.NAME: {name!r} is no ConvNeXt or Swin of timm {timm.__version__}; "
            "convnext_base and swin_base_patch4_window7_224 are"
        )
    model = timm.create_model(
        name,
        in_chans=image_channels,
        num_classes=0,
        drop_path_rate=cfg.MODEL.TIMM.DROP_PATH_RATE,
        **options,
    )
    channels = [stage["num_chs"] for stage in model.feature_info[_TRUNK_STAGES - 1 :]]
    if name.startswith("swin_"):
        trunk, head = _split_swin(model)
        return _Split(model.patch_embed, trunk, head, *channels)
    trunk, head = _split_convnext(model)
    return _Split(model.stem, trunk, head, *channels)


def _split_convnext(model: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    trunk = OrderedDict(stem=model.stem, stages=_stages(model.stages, 0, _TRUNK_STAGES))
    head = OrderedDict(stages=_stages(model.stages, _TRUNK_STAGES, None), norm_pre=model.norm_pre)
    return nn.Sequential(trunk), nn.Sequential(head)


def _split_swin(model: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    trunk = OrderedDict(
        patch_embed=model.patch_embed,
        layers=_stages(model.layers, 0, _TRUNK_STAGES),
        channels_first=Permute([0, 3, 1, 2]),
    )
    head = OrderedDict(
        channels_last=Permute([0, 2, 3, 1]),
        layers=_stages(model.layers, _TRUNK_STAGES, None),
        norm=model.norm,
        channels_first=Permute([0, 3, 1, 2]),
    )
    return nn.Sequential(trunk), _SwinStage(head)


class _SwinStage(nn.Sequential):
    """The stage of a Swin, which cannot tell the shape of its windows from no region at all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x):
            return super().forward(x)
        # Its weights take part in the step nevertheless, as other processes wait for.
        return super().forward(x.new_zeros(1, *x.shape[1:]))[:0]


def _stages(stages: nn.Sequential, start: int, stop: int | None) -> nn.Sequential:
    return nn.Sequential(OrderedDict(list(stages.named_children())[start:stop]))
