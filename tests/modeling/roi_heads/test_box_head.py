# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import build_box_head

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
