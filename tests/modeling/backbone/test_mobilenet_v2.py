# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone
from split_classifier import Split
from torch import nn
from torchvision.models import mobilenet_v2

import kdps.modeling  # noqa: F401  (registers the backbone)
from kdps.checkpoint.checkpointer import PersonSearchCheckpointer
from kdps.config import get_cfg
from kdps.errors import KdpsError


def mobilenet_cfg(*opts):
    cfg = get_cfg()
    cfg.merge_from_file("configs/Base-PersonSearch-RCNN-C4.yaml")
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", "build_mobilenet_v2", *opts])
    return cfg


def test_the_parts_compute_what_the_whole_does(tmp_path):
    torch.manual_seed(0)
    whole = mobilenet_v2().eval()
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    torch.save(whole.state_dict(), tmp_path / "mobilenet_v2.pth")
    split = Split(mobilenet_cfg()).eval()
    PersonSearchCheckpointer(split).load_complete(str(tmp_path / "mobilenet_v2.pth"))
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert split.backbone(x)["res4"].shape == (2, 96, 4, 6)
        assert split(x).shape == (2, split.channels, 2, 3)
        torch.testing.assert_close(split(x), whole.features(x))


def test_shape():
    backbone = build_backbone(mobilenet_cfg())
    assert backbone.output_shape() == {"res4": ShapeSpec(channels=96, stride=16)}


def test_norms_of_trunk_and_of_head():
    split = Split(mobilenet_cfg("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.ROI_BOX_HEAD.NORM", "BN"))

    def kinds(part):
        norms = (FrozenBatchNorm2d, nn.BatchNorm2d)
        return {type(m) for m in part.modules() if isinstance(m, norms)}

    assert kinds(split.backbone) == {FrozenBatchNorm2d}
    assert kinds(split.res5) == {nn.BatchNorm2d}


@pytest.mark.parametrize(("how", "count"), [("stem_affine", 3), ("none", 0)])
def test_freezing(how, count):
    backbone = build_backbone(mobilenet_cfg("MODEL.BACKBONE.FREEZE", how))
    frozen = [name for name, p in backbone.named_parameters() if not p.requires_grad]
    assert len(frozen) == count
    assert all(name.startswith("layers.features.0.") for name in frozen)


def test_grey_images_are_refused():
    with pytest.raises(KdpsError, match=r"MODEL.PIXEL_MEAN: .* takes 3 channels, not 1"):
        build_backbone(mobilenet_cfg("MODEL.PIXEL_MEAN", [120.0]))


def test_weights_of_another_network(tmp_path):
    state = mobilenet_v2(width_mult=0.5).state_dict()
    torch.save(state, tmp_path / "half.pth")
    split = Split(mobilenet_cfg())
    with pytest.raises(KdpsError, match=r"half.pth does not fill the backbone \(\d+ entries"):
        PersonSearchCheckpointer(split).load_initial(str(tmp_path / "half.pth"))
