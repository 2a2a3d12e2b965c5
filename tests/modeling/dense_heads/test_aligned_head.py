# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.layers import ShapeSpec

from kdps.layers.deformable_conv import DeformableConv
from kdps.modeling.dense_heads import AlignedHead
from kdps.utils.testing import ALIGNPS, tiny_cfg

SHAPES = [ShapeSpec(channels=32, stride=stride) for stride in (8, 16, 32)]


@pytest.fixture
def head():
    torch.manual_seed(0)
    return AlignedHead(tiny_cfg(*ALIGNPS), SHAPES)


def test_people_are_looked_for_on_all_maps_and_boxes_on_the_finest(head):
    maps = [torch.randn(2, 32, 8 // 2**i, 12 // 2**i) for i in range(3)]
    logits, deltas, centre_logits = head(maps)
    assert [tuple(own.shape) for own in logits] == [(2, 1, 8, 12), (2, 1, 4, 6), (2, 1, 2, 3)]
    assert deltas.shape == (2, 4, 8, 12)
    assert centre_logits.shape == (2, 1, 8, 12)
    alone = head(maps[:1])
    torch.testing.assert_close(alone[0][0], logits[0])
    torch.testing.assert_close(alone[1], deltas)


def test_the_last_convolution_of_a_branch_is_deformable(head):
    for branch in (head.cls_subnet, head.bbox_subnet):
        kinds = [type(layer).__name__ for layer in branch]
        assert kinds == ["Conv2d", "GroupNorm", "ReLU", "DeformableConv", "GroupNorm", "ReLU"]
        (last,) = [layer for layer in branch if isinstance(layer, DeformableConv)]
        assert last.offset.out_channels == 27


def test_it_may_be_plain():
    head = AlignedHead(tiny_cfg(*ALIGNPS, "MODEL.ALIGNPS.DEFORMABLE", False), SHAPES)
    assert not any(isinstance(layer, DeformableConv) for layer in head.modules())
    assert head([torch.randn(1, 32, 4, 4)])[1].shape == (1, 4, 4, 4)


def test_boxes_are_scaled(head):
    x = [torch.randn(1, 32, 4, 4)]
    before = head(x)[1]
    with torch.no_grad():
        head.box_scale.fill_(3.0)
    torch.testing.assert_close(head(x)[1], 3 * before)


def test_it_starts_with_the_prior(head):
    with torch.no_grad():
        head.cls_score.weight.zero_()
    logits = head([torch.randn(1, 32, 4, 4)])[0][0]
    torch.testing.assert_close(logits.sigmoid(), torch.full((1, 1, 4, 4), 0.01))
