# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch
import torchvision
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_resnet_backbone

from kdps.checkpoint.matching import (
    is_named_alike,
    is_torchvision_convnext,
    is_torchvision_resnet,
    match_by_suffix,
    rename_torchvision_convnext,
    rename_torchvision_resnet,
)


def test_one_entry_fills_every_module_whose_name_it_ends() -> None:
    model = ["backbone.res4.0.w", "heads.a.res5.0.w", "heads.b.res5.0.w", "heads.b.fc.w"]
    matched = match_by_suffix(model, {"res4.0.w": 4, "res5.0.w": 5})
    assert matched == {"backbone.res4.0.w": 4, "heads.a.res5.0.w": 5, "heads.b.res5.0.w": 5}


def test_longest_name_wins() -> None:
    state = {"conv1.w": 1, "res2.conv1.w": 2}
    matched = match_by_suffix(["backbone.conv1.w", "backbone.res2.conv1.w"], state)
    assert matched == {"backbone.conv1.w": 1, "backbone.res2.conv1.w": 2}


def test_names_match_by_whole_components() -> None:
    assert match_by_suffix(["a.deconv1.w"], {"conv1.w": 1}) == {"conv1.w": 1}


def test_equal_names_match_and_unused_entries_stay() -> None:
    assert match_by_suffix(["a.w", "b.w"], {"a.w": 1, "c.w": 2}) == {"a.w": 1, "c.w": 2}


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvision_names_fill_detectron2s_resnet(depth: int) -> None:
    state = getattr(torchvision.models, f"resnet{depth}")(weights=None).state_dict()
    assert is_torchvision_resnet(state)
    cfg = get_cfg()
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    if depth == 18:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    backbone = build_resnet_backbone(cfg, ShapeSpec(channels=3))
    renamed = rename_torchvision_resnet(state)
    rest = backbone.load_state_dict(renamed, strict=False)
    assert rest.missing_keys == []
    assert rest.unexpected_keys == ["fc.weight", "fc.bias"]
    shortcut = backbone.res3[0].shortcut.norm.weight
    assert torch.equal(shortcut, state["layer2.0.downsample.1.weight"])


def test_a_detectors_names_are_no_torchvision_resnet() -> None:
    assert not is_torchvision_resnet(["backbone.stem.conv1.weight", "conv1.weight"])


def test_torchvision_names_become_timms_convnext() -> None:
    timm = pytest.importorskip("timm")
    state = torchvision.models.convnext_tiny(weights=None).state_dict()
    assert is_torchvision_convnext(state)
    renamed = rename_torchvision_convnext(state)
    expected = timm.create_model("convnext_tiny", num_classes=0).state_dict()
    left_over = {key for key in renamed if not key.startswith("classifier.")} - expected.keys()
    assert not left_over
    assert {key for key in expected if key not in renamed} == {"head.norm.weight", "head.norm.bias"}
    assert all(renamed[key].shape == expected[key].shape for key in renamed.keys() & expected)


def test_which_classifiers_are_named_as_backbones_name_them() -> None:
    mobilenet = torchvision.models.mobilenet_v2(weights=None).state_dict()
    assert is_named_alike(mobilenet)
    assert not is_torchvision_convnext(mobilenet)
    assert not is_named_alike(torchvision.models.resnet18(weights=None).state_dict())
