# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""torchvision's MobileNetV2, split at stride 16."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY
from torch import nn
from torchvision.models import mobilenet_v2

from kdps.errors import KdpsError
from kdps.modeling.backbone.head_stage import register_head_stage
from kdps.modeling.backbone.resnet import freeze, head_norm
from kdps.modeling.backbone.trunk import ClassifierTrunk

# The first block of stride 32.
_SPLIT = 14
_TRUNK_CHANNELS, _CHANNELS = 96, 1280


@BACKBONE_REGISTRY.register()
def build_mobilenet_v2(cfg: CfgNode, input_shape: ShapeSpec) -> ClassifierTrunk:
    """The blocks up to stride 16 of "MobileNetV2: Inverted Residuals and Linear Bottlenecks"
    (Sandler et al., CVPR 2018), with 96 channels.

    The norm is ``MODEL.RESNETS.NORM``.

    Raises:
        KdpsError: images have other than 3 channels.
    """
    if input_shape.channels != 3:
        raise KdpsError(
            f"MODEL.PIXEL_MEAN: build_mobilenet_v2 takes 3 channels, not {input_shape.channels}"
        )
    features = _features(cfg.MODEL.RESNETS.NORM)
    freeze(features[0], cfg.MODEL.BACKBONE.FREEZE)
    return ClassifierTrunk(_named(features, 0, _SPLIT), _TRUNK_CHANNELS)


@register_head_stage("build_mobilenet_v2")
def build_mobilenet_v2_stage(cfg: CfgNode, in_channels: int) -> tuple[nn.Sequential, int]:
    """The other blocks and the last convolution, of 1280 channels.

    Args:
        in_channels: those of the trunk; the stage takes no others.
    """
    return _named(_features(head_norm(cfg)), _SPLIT, None), _CHANNELS


def _features(norm: str) -> nn.Sequential:
    return mobilenet_v2(norm_layer=partial(get_norm, norm)).features


def _named(features: nn.Sequential, start: int, stop: int | None) -> nn.Sequential:
    """Some blocks under the names that the whole network gives them."""
    blocks = nn.Sequential(OrderedDict(list(features.named_children())[start:stop]))
    return nn.Sequential(OrderedDict(features=blocks))
