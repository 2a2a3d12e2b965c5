# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from torch import nn

import kdps.modeling  # noqa: F401  (registers the backbones)
from kdps.config import get_cfg
from kdps.errors import KdpsError
from kdps.layers.deformable_conv import DeformableConv
from kdps.modeling.backbone.resnet import build_res5_stage


def resnet_cfg(depth=50, freeze="stem_affine"):
    cfg = get_cfg()
    cfg.merge_from_file("configs/Base-PersonSearch-RCNN-C4.yaml")
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.BACKBONE.FREEZE = freeze
    if depth < 50:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    return cfg


# Channels of res4 and res5, and convolutions of res5 (its shortcut included).
@pytest.mark.parametrize(
    ("depth", "res4", "res5", "convolutions"),
    [(18, 256, 512, 5), (34, 256, 512, 7), (50, 1024, 2048, 10), (101, 1024, 2048, 10)],
)
def test_trunk_and_last_stage(depth, res4, res5, convolutions):
    cfg = resnet_cfg(depth)
    backbone = build_backbone(cfg)
    assert backbone.output_shape() == {"res4": ShapeSpec(channels=res4, stride=16)}
    stage, channels = build_res5_stage(cfg, res4)
    assert channels == res5
    assert sum(isinstance(m, nn.Conv2d) for m in stage.modules()) == convolutions
    assert stage(torch.zeros(2, res4, 14, 14)).shape == (2, res5, 7, 7)


def test_stem_affine_freezes_three_parameters_whose_statistics_still_move():
    backbone = build_backbone(resnet_cfg(18)).train()
    frozen = [name for name, p in backbone.named_parameters() if not p.requires_grad]
    assert frozen == ["stem.conv1.weight", "stem.conv1.norm.weight", "stem.conv1.norm.bias"]
    norm = backbone.stem.conv1.norm
    before = norm.running_mean.clone()
    backbone(torch.randn(2, 3, 64, 64))
    assert not torch.equal(norm.running_mean, before)


def test_none_freezes_nothing():
    backbone = build_backbone(resnet_cfg(18, "none"))
    assert all(p.requires_grad for p in backbone.parameters())


def test_unknown_way_to_freeze():
    with pytest.raises(KdpsError, match="MODEL.BACKBONE.FREEZE is 'all'"):
        build_backbone(resnet_cfg(18, "all"))


def test_stride_is_in_the_3x3_convolution():
    stage, _ = build_res5_stage(resnet_cfg(50), 1024)
    assert stage[0].conv1.stride == (1, 1)
    assert stage[0].conv2.stride == (2, 2)


def deformable_cfg():
    cfg = resnet_cfg(50, "none")
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False, True, True, True]
    cfg.MODEL.RESNETS.DEFORM_MODULATED = True
    # Narrow, so that it is quick.
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS, cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 16, 4
    return cfg


def test_deformable_stages():
    backbone = build_backbone(deformable_cfg())
    deformable = [n for n, m in backbone.named_modules() if isinstance(m, DeformableConv)]
    expected = {"res3": 4, "res4": 6, "res5": 3}
    assert deformable == [f"{s}.{i}.conv2" for s, blocks in expected.items() for i in range(blocks)]
    assert backbone.res4[0].conv2.norm is not None
    out = backbone(torch.randn(1, 3, 64, 96))["res5"]
    assert out.shape == (1, 128, 2, 3)
    out.sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_frozen_deformable_stages():
    cfg = deformable_cfg()
    cfg.MODEL.BACKBONE.FREEZE_AT = 3
    backbone = build_backbone(cfg)
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == name.startswith(("res4", "res5")), name


def test_unmodulated_ones_start_as_the_ordinary_network():
    cfg = deformable_cfg()
    cfg.MODEL.RESNETS.DEFORM_MODULATED = False
    deformable = build_backbone(cfg).eval()
    cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False] * 4
    ordinary = build_backbone(cfg).eval()
    missing = ordinary.load_state_dict(deformable.state_dict(), strict=False)
    assert not missing.missing_keys
    assert all(".offset." in key for key in missing.unexpected_keys)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(deformable(x)["res5"], ordinary(x)["res5"])


def test_blocks_that_are_no_bottlenecks_cannot_be_deformable():
    cfg = resnet_cfg(18)
    cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False, False, True, False]
    with pytest.raises(KdpsError, match=r"DEFORM_ON_PER_STAGE: .* DEPTH of at least 50, not 18"):
        build_backbone(cfg)
