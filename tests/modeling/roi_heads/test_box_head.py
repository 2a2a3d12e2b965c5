# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling.roi_heads import build_box_head
from torch import nn

from kdps.config import get_cfg
from kdps.utils.testing import tiny_cfg


def test_features_are_maxima_over_the_region():
    torch.manual_seed(0)
    head = build_box_head(tiny_cfg(), ShapeSpec(channels=16)).eval()
    x = torch.randn(3, 16, 6, 4)
    features = head(x)
    assert {name: f.shape for name, f in features.items()} == {"res4": (3, 16), "res5": (3, 24)}
    assert torch.equal(features["res4"], x.flatten(2).max(dim=2).values)
    assert torch.equal(features["res5"], head.res5(x).flatten(2).max(dim=2).values)
    assert {name: s.channels for name, s in head.output_shape.items()} == {"res4": 16, "res5": 24}


def test_no_regions():
    head = build_box_head(tiny_cfg(), ShapeSpec(channels=16)).eval()
    features = head(torch.zeros(0, 16, 6, 4))
    assert features["res4"].shape == (0, 16)
    assert features["res5"].shape == (0, 24)


def test_the_published_head_is_res5():
    cfg = get_cfg()
    cfg.merge_from_file("configs/Base-PersonSearch-RCNN-C4.yaml")
    head = build_box_head(cfg, ShapeSpec(channels=1024))
    assert {name: s.channels for name, s in head.output_shape.items()} == {
        "res4": 1024,
        "res5": 2048,
    }
    assert [name for name, _ in head.named_children()] == ["res5"]


def test_features_may_be_averages():
    torch.manual_seed(0)
    cfg = tiny_cfg("MODEL.ROI_BOX_HEAD.REGION_POOL", "average")
    head = build_box_head(cfg, ShapeSpec(channels=16)).eval()
    x = torch.randn(3, 16, 6, 4)
    features = head(x)
    torch.testing.assert_close(features["res4"], x.flatten(2).mean(dim=2))
    torch.testing.assert_close(features["res5"], head.res5(x).flatten(2).mean(dim=2))


def test_the_head_may_have_a_norm_of_its_own():
    cfg = tiny_cfg("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.ROI_BOX_HEAD.NORM", "BN")
    head = build_box_head(cfg, ShapeSpec(channels=16))
    assert any(isinstance(m, nn.BatchNorm2d) for m in head.modules())
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in head.modules())


def test_the_head_of_oim_net_begins_in_res4():
    cfg = get_cfg()
    cfg.merge_from_file("configs/Base-OIM-C4.yaml")
    narrow = ["MODEL.RESNETS.RES2_OUT_CHANNELS", 8, "MODEL.RESNETS.WIDTH_PER_GROUP", 2]
    cfg.merge_from_list(narrow)
    head = build_box_head(cfg, ShapeSpec(channels=32)).eval()
    assert (len(head.res4), len(head.res5)) == (3, 3)
    x = torch.randn(2, 32, 14, 14)
    before = head.res4(x)
    features = head(x)
    torch.testing.assert_close(features["res4"], before.mean(dim=(2, 3)))
    torch.testing.assert_close(features["res5"], head.res5(before).mean(dim=(2, 3)))
    assert head.res5(before).shape == (2, 64, 7, 7)
    # The trunk's norms are frozen, these are not.
    assert all(m.weight.requires_grad for m in head.modules() if isinstance(m, nn.BatchNorm2d))
    assert isinstance(head.res5[0].norm, nn.BatchNorm2d)
