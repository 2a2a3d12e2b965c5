# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone
from torch import nn
from torch.nn import functional as F

import kdps.modeling  # noqa: F401  (registers the backbones)
from kdps.config import get_cfg
from kdps.errors import KdpsError
from kdps.modeling.backbone import build_post_norm_res4_rest, build_post_norm_res5
from kdps.modeling.backbone.post_norm_resnet import PostNormBottleneck, PostNormStem


def oim_cfg(*opts):
    cfg = get_cfg()
    cfg.merge_from_file("configs/Base-OIM-C4.yaml")
    cfg.merge_from_list(opts)
    return cfg


@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (12, 1), (12, 2)])
def test_a_block_normalises_after_the_addition(channels, stride):
    torch.manual_seed(0)
    block = PostNormBottleneck(8, channels, bottleneck_channels=4, stride=stride).eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
    x = torch.randn(2, 8, 6, 6)
    out = F.relu(block.conv2(F.relu(block.conv1(x))))
    shortcut = x if channels == 8 else block.shortcut(x)
    expected = F.relu(block.norm(block.conv3(out) + shortcut))
    torch.testing.assert_close(block(x), expected)
    assert block.conv1.bias is not None
    assert block.conv3.norm is None
    assert (block.shortcut is None) == (channels == 8)


def test_the_maximum_of_the_stem_reaches_over_the_border():
    stem = PostNormStem(3, 4, "BN").eval()
    assert stem(torch.zeros(1, 3, 64, 68)).shape == (1, 4, 16, 17)
    # Convolved to 31: windows begin at 0, 2, ..., 30, the last one with a single pixel.
    x = torch.randn(1, 3, 62, 62)
    inner = F.relu(stem.conv1(x))
    out = stem(x)
    assert out.shape[-1] == 15
    assert torch.equal(out[..., 0, 0], inner[..., :3, :3].amax(dim=(2, 3)))


def test_trunk_and_rest():
    cfg = oim_cfg()
    backbone = build_backbone(cfg)
    assert backbone.output_shape() == {"res4": ShapeSpec(channels=1024, stride=16)}
    assert [len(stage) for stage in backbone.stages] == [3, 4, 3]
    assert len(build_post_norm_res4_rest(cfg)) == 3
    stage, channels = build_post_norm_res5(cfg, 1024)
    assert channels == 2048
    assert [block.stride for block in stage] == [2, 1, 1]
    assert stage[0].conv2.stride == (2, 2)


def test_only_the_first_convolution_and_the_norms_of_the_trunk_are_frozen():
    backbone = build_backbone(oim_cfg())
    frozen = [name for name, p in backbone.named_parameters() if not p.requires_grad]
    assert frozen == ["stem.conv1.weight", "stem.conv1.bias"]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    assert isinstance(backbone.res4[0].norm, FrozenBatchNorm2d)


def test_the_split_of_res4_is_a_key():
    cfg = oim_cfg("MODEL.POST_NORM_RESNET.RES4_TRUNK_BLOCKS", 5)
    assert len(build_backbone(cfg).res4) == 5
    assert len(build_post_norm_res4_rest(cfg)) == 1


@pytest.mark.parametrize("blocks", [0, 7])
def test_a_trunk_that_does_not_end_in_res4(blocks):
    with pytest.raises(KdpsError, match=rf"RES4_TRUNK_BLOCKS: {blocks} is outside 1 to 6"):
        build_backbone(oim_cfg("MODEL.POST_NORM_RESNET.RES4_TRUNK_BLOCKS", blocks))


def test_other_depths():
    with pytest.raises(KdpsError, match=r"RESNETS.DEPTH: .* 50 layers, not 101"):
        build_backbone(oim_cfg("MODEL.RESNETS.DEPTH", 101))
