# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""ResNet trunks up to res4 and the res5 stage that the heads copy."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, ResNet, build_resnet_backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from torch import nn

from kdps.errors import KdpsError
from kdps.layers.deformable_conv import DeformableConv
from kdps.modeling.backbone.head_stage import register_head_stage


@BACKBONE_REGISTRY.register()
def build_person_search_resnet(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Detectron2's ResNet, frozen as ``MODEL.BACKBONE.FREEZE`` says.

    Stages of ``MODEL.RESNETS.DEFORM_ON_PER_STAGE`` have deformable convolutions. Detectron2's own
    block with them needs compiled operators; these do not.

    Raises:
        KdpsError: an unknown value of ``MODEL.BACKBONE.FREEZE``, or a deformable stage of blocks
            that are no bottlenecks.
    """
    resnets = cfg.MODEL.RESNETS
    plain = cfg.clone()
    plain.defrost()
    plain.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False] * 4
    backbone = build_resnet_backbone(plain, input_shape)
    if any(resnets.DEFORM_ON_PER_STAGE) and resnets.DEPTH < 50:
        raise KdpsError(
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE: deformable stages need a DEPTH of at least 50, "
            f"not {resnets.DEPTH}"
        )
    deform_stages(backbone, resnets)
    # Once more, for the new layers.
    backbone.freeze(cfg.MODEL.BACKBONE.FREEZE_AT)
    freeze(backbone.stem, cfg.MODEL.BACKBONE.FREEZE)
    return backbone


@BACKBONE_REGISTRY.register()
def build_person_search_resnet_fpn(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Detectron2's feature pyramid on :func:`build_person_search_resnet`: p2 to p6 from res2 on.

    Raises:
        KdpsError: see :func:`build_person_search_resnet`.
    """
    node = cfg.MODEL.FPN
    return FPN(
        bottom_up=build_person_search_resnet(cfg, input_shape),
        in_features=node.IN_FEATURES,
        out_channels=node.OUT_CHANNELS,
        norm=node.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=node.FUSE_TYPE,
    )


def deform_stages(backbone: ResNet, resnets: CfgNode) -> None:
    """Let the taps of the last 3 x 3 convolution of each block move, in place.

    Args:
        backbone: a ResNet.
        resnets: ``MODEL.RESNETS``, which says of which stages, and how (``DEFORM_...``).
    """
    for stage, deform in zip(backbone.stages, resnets.DEFORM_ON_PER_STAGE, strict=False):
        for block in stage if deform else ():
            block.conv2 = DeformableConv(
                block.conv2,
                modulated=resnets.DEFORM_MODULATED,
                deform_groups=resnets.DEFORM_NUM_GROUPS,
            )


def freeze(stem: nn.Module, how: str) -> None:
    """Take the gradient from the first layers of a backbone, in place.

    Args:
        stem: the first convolution and its norm.
        how: "none", or "stem_affine": the convolution and the scale and shift of its norm, whose
            running statistics still move (SeqNet, NAE and COAT).
    """
    if how == "stem_affine":
        for parameter in stem.parameters():
            parameter.requires_grad_(False)
    elif how != "none":
        raise KdpsError(f"MODEL.BACKBONE.FREEZE is {how!r}; it must be 'none' or 'stem_affine'")


def head_norm(cfg: CfgNode) -> str:
    """The norm of the stages that work on pooled regions: its own, or that of the trunk."""
    return cfg.MODEL.ROI_BOX_HEAD.NORM or cfg.MODEL.RESNETS.NORM


@register_head_stage(
    *("build_person_search_resnet", "build_resnet_backbone", "build_aligned_backbone"),
    *("build_person_search_resnet_fpn", "build_resnet_fpn_backbone"),
)
def build_res5_stage(cfg: CfgNode, in_channels: int) -> tuple[nn.Sequential, int]:
    """The last stage of the ResNet of ``cfg``, for use on pooled regions.

    Returns:
        The stage, of stride ``MODEL.ROI_BOX_HEAD.RES5_STRIDE``, and the number of its output
        channels.
    """
    resnets = cfg.MODEL.RESNETS
    out_channels = resnets.RES2_OUT_CHANNELS * 8
    kwargs = {}
    if resnets.DEPTH >= 50:
        kwargs = {
            "bottleneck_channels": resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP * 8,
            "num_groups": resnets.NUM_GROUPS,
            "stride_in_1x1": resnets.STRIDE_IN_1X1,
        }
    blocks = 2 if resnets.DEPTH == 18 else 3
    stage = ResNet.make_stage(
        BottleneckBlock if resnets.DEPTH >= 50 else BasicBlock,
        blocks,
        stride_per_block=[cfg.MODEL.ROI_BOX_HEAD.RES5_STRIDE] + [1] * (blocks - 1),
        in_channels=in_channels,
        out_channels=out_channels,
        norm=head_norm(cfg),
        **kwargs,
    )
    return nn.Sequential(*stage), out_channels
