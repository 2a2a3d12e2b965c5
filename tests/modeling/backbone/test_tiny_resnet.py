# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

from kdps.errors import KdpsError
from kdps.layers.deformable_conv import DeformableConv
from kdps.modeling.backbone import build_tiny_head_stage
from kdps.utils.testing import tiny_cfg


@pytest.mark.parametrize(("strides", "total"), [((1, 2, 2), 16), ((1, 2, 1), 8)])
def test_sizes_are_those_of_the_config(strides, total):
    cfg = tiny_cfg(
        *("MODEL.TINY_RESNET.STEM_CHANNELS", 4, "MODEL.TINY_RESNET.CHANNELS", (4, 6, 8)),
        *("MODEL.TINY_RESNET.BLOCKS", (1, 2, 3), "MODEL.TINY_RESNET.STRIDES", strides),
        *("MODEL.RESNETS.OUT_FEATURES", ["res3", "res4"]),
    )
    backbone = build_backbone(cfg)
    assert backbone.output_shape() == {
        "res3": ShapeSpec(channels=6, stride=8),
        "res4": ShapeSpec(channels=8, stride=total),
    }
    assert [len(stage) for stage in backbone.stages] == [1, 2, 3]
    features = backbone(torch.zeros(1, 3, 64, 32))
    assert features["res4"].shape == (1, 8, 64 // total, 32 // total)


def test_freezing():
    backbone = build_backbone(tiny_cfg("MODEL.BACKBONE.FREEZE", "stem_affine"))
    assert not any(p.requires_grad for p in backbone.stem.parameters())
    assert all(p.requires_grad for p in backbone.res2.parameters())


def test_deformable_stages():
    backbone = build_backbone(
        tiny_cfg("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, False])
    )
    deformable = [n for n, m in backbone.named_modules() if isinstance(m, DeformableConv)]
    assert deformable == ["res3.0.conv2", "res4.0.conv2"]
    backbone(torch.randn(1, 3, 64, 32))["res4"].sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_head_stage():
    cfg = tiny_cfg("MODEL.TINY_RESNET.HEAD_CHANNELS", 10, "MODEL.TINY_RESNET.HEAD_BLOCKS", 2)
    stage, channels = build_tiny_head_stage(cfg, 16)
    assert channels == 10
    assert len(stage) == 2
    assert stage(torch.zeros(3, 16, 6, 4)).shape == (3, 10, 3, 2)


def test_stages_must_have_all_their_sizes():
    with pytest.raises(KdpsError, match="TINY_RESNET.CHANNELS, BLOCKS and STRIDES"):
        build_backbone(tiny_cfg("MODEL.TINY_RESNET.BLOCKS", (1, 1)))
