# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator, build_anchor_generator
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from kdps.modeling import CaffeAnchorGenerator, RoundedAnchorGenerator

SIZES, RATIOS = (32, 64, 128, 256, 512), (0.5, 1.0, 2.0)


def test_golden_cell_anchors():
    generator = RoundedAnchorGenerator(
        sizes=[[32, 64]], aspect_ratios=[[0.5, 2.0]], strides=[16], offset=0.0
    )
    # 32 / sqrt 0.5 = 45.25 wide, 22.63 high; halved and rounded. Ratios first, then sizes.
    expected = [[-23, -11, 23, 11], [-45, -23, 45, 23], [-11, -23, 11, 23], [-23, -45, 23, 45]]
    assert next(iter(generator.cell_anchors)).tolist() == expected


def test_equals_torchvision():
    cfg = get_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RoundedAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [list(SIZES)]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [list(RATIOS)]
    generator = build_anchor_generator(cfg, [ShapeSpec(stride=16)])
    features = torch.zeros(1, 4, 6, 10)
    images = ImageList(torch.zeros(1, 3, 96, 160), [(90, 150)])
    expected = AnchorGenerator((SIZES,), (RATIOS,))(images, [features])[0]
    assert torch.equal(generator([features])[0].tensor, expected)


def test_offset_moves_the_grid_as_in_detectron2():
    kwargs = {"sizes": [[32]], "aspect_ratios": [[1.0]], "strides": [8], "offset": 0.5}
    features = [torch.zeros(1, 1, 3, 2)]
    ours = RoundedAnchorGenerator(**kwargs)(features)[0].tensor
    theirs = DefaultAnchorGenerator(**kwargs)(features)[0].tensor
    assert torch.equal(ours, theirs)


def test_anchors_of_caffe_are_rounded_at_a_size_of_16():
    generator = CaffeAnchorGenerator(
        sizes=[[128, 256]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=[16], offset=0.5
    )
    # 16 / sqrt 0.5 = 22.6 wide becomes 23, and 11.5 high 12; eight and sixteen times that.
    w, h = (
        torch.tensor([184.0, 368, 128, 256, 88, 176]),
        torch.tensor([96.0, 192, 128, 256, 176, 352]),
    )
    expected = torch.stack([-w, -h, w, h], dim=1) / 2
    assert torch.equal(next(iter(generator.cell_anchors)), expected)
    first, second = generator([torch.zeros(1, 1, 1, 2)])[0].tensor.view(2, 6, 4)
    assert torch.equal(first, expected + 8)
    assert torch.equal(second, expected + torch.tensor([24, 8, 24, 8]))
