# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.modeling import build_backbone

import kdps.modeling  # noqa: F401  (registers the backbone)
from kdps.errors import KdpsError
from kdps.modeling.backbone import AlignedFeatureAggregation
from kdps.utils.testing import ALIGNPS, tiny_cfg

IMAGE = torch.zeros(2, 3, 64, 96)


def build(*opts):
    torch.manual_seed(0)
    return build_backbone(tiny_cfg(*ALIGNPS, *opts))


def test_maps_in_training():
    backbone = build("MODEL.AFA.NUM_LEVELS", 4).train()
    maps = backbone(IMAGE)
    shapes = backbone.output_shape()
    assert list(maps) == list(shapes) == ["res3", "res4", "p3", "p4", "p5", "p6"]
    for name, own in maps.items():
        stride = shapes[name].stride
        sides = [-(-side // stride) for side in (64, 96)]
        assert list(own.shape) == [2, shapes[name].channels, *sides], name
    assert backbone.size_divisibility == 16


def test_of_the_joined_maps_only_the_finest_at_test_time():
    backbone = build().eval()
    assert list(backbone(IMAGE)) == ["res3", "res4", "p3"]
    with torch.no_grad():
        finest = backbone(torch.ones(1, 3, 64, 96))["p3"]
        torch.testing.assert_close(finest, backbone.train().eval()(torch.ones(1, 3, 64, 96))["p3"])


def test_its_convolutions_are_deformable_or_plain():
    def kinds(*opts):
        backbone = build(*opts)
        return {type(own).__name__ for own in (*backbone.laterals, *backbone.outputs)}

    assert kinds() == {"DeformableConv"}
    assert kinds("MODEL.AFA.DEFORMABLE", False) == {"Conv2d"}
    # Offsets start at zero, so that both start as the same network.
    plain, moving = build("MODEL.AFA.DEFORMABLE", False), build()
    moving.load_state_dict(plain.state_dict(), strict=False)
    image = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(plain.eval()(image)["p3"], moving.eval()(image)["p3"])


def test_one_level():
    backbone = build("MODEL.AFA.NUM_LEVELS", 1).train()
    assert list(backbone(IMAGE)) == ["res3", "res4", "p3"]
    assert len(backbone.outputs) == 1


def test_coarser_maps_are_appended_by_nearest_neighbour():
    fine, coarse = torch.zeros(1, 1, 2, 4), torch.tensor([[[[1.0, 2.0]]]])
    finest, coarsest = AlignedFeatureAggregation.join_laterals([fine, coarse])
    assert torch.equal(coarsest, coarse)
    assert finest[0, 0].tolist() == [[0] * 4] * 2
    assert finest[0, 1].tolist() == [[1, 1, 2, 2]] * 2


def test_channels_add_up_from_coarse_to_fine():
    joined = AlignedFeatureAggregation.join_laterals(
        [torch.zeros(1, 5, 12 // 2**i, 12 // 2**i) for i in range(3)]
    )
    assert [own.shape[1] for own in joined] == [15, 10, 5]


def test_maps_that_the_network_does_not_have():
    with pytest.raises(KdpsError, match=r"FPN.IN_FEATURES: \['res9'\] must be .*\(res3, res4\)"):
        build("MODEL.FPN.IN_FEATURES", ["res9"])
