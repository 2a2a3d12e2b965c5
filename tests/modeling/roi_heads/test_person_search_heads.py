# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What the heads of all two-stage methods share."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes

import kdps.modeling  # noqa: F401  (registers the models)
from kdps.errors import KdpsError
from kdps.modeling.roi_heads import person_search_heads
from kdps.modeling.roi_heads.person_search_heads import split_boxes
from kdps.utils.testing import TINY_RCNNS, make_boxes, tiny_cfg

METHODS = pytest.mark.parametrize("method", TINY_RCNNS)
SIZE = (64, 96)


def build(method, *opts):
    torch.manual_seed(0)
    return build_model(tiny_cfg(*TINY_RCNNS[method], *opts)).roi_heads.eval()


@METHODS
def test_given_boxes_of_several_images_keep_their_order(method):
    heads, generator = build(method), torch.Generator().manual_seed(1)
    features = {"res4": torch.randn(3, 16, 4, 6, generator=generator)}
    boxes = [make_boxes(n, *SIZE, generator) for n in (2, 0, 3)]
    with torch.no_grad():
        together = heads.embed_boxes(features, boxes)
        for i, own in enumerate(boxes):
            alone = heads.embed_boxes({"res4": features["res4"][i : i + 1]}, [own])[0]
            assert alone.shape == (len(own), 16)
            torch.testing.assert_close(together[i], alone)


@METHODS
def test_regions_that_go_through_in_parts(method, monkeypatch):
    heads, generator = build(method), torch.Generator().manual_seed(1)
    features = {"res4": torch.randn(3, 16, 4, 6, generator=generator)}
    boxes = [make_boxes(n, *SIZE, generator) for n in (3, 0, 4)]
    with torch.no_grad():
        whole = heads.embed_boxes(features, boxes)
        monkeypatch.setattr(person_search_heads, "_REGIONS_AT_ONCE", 2)
        parts = heads.embed_boxes(features, boxes)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)


def test_parts_of_boxes_keep_their_images():
    boxes = [Boxes(torch.arange(4.0 * n).view(n, 4) + 100 * n) for n in (3, 0, 4)]
    parts = split_boxes(boxes, 2)
    assert [[len(own) for own in part] for part in parts] == [
        [2, 0, 0],
        [1, 0, 1],
        [0, 0, 2],
        [0, 0, 1],
    ]
    for image, own in enumerate(boxes):
        assert torch.equal(Boxes.cat([part[image] for part in parts]).tensor, own.tensor)
    assert [[len(own) for own in part] for part in split_boxes([boxes[1]] * 2, 2)] == [[0, 0]]


@METHODS
def test_a_box_head_of_another_kind_is_refused(method):
    with pytest.raises(KdpsError, match=r"ROI_BOX_HEAD.NAME: .* FastRCNNConvFCHead does not"):
        build(
            *(method, "MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead"),
            *("MODEL.ROI_BOX_HEAD.NUM_FC", 1, "MODEL.ROI_BOX_HEAD.POOLER_SIZE", ()),
            *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7),
        )


def test_pooled_regions_have_the_size_in_the_config():
    assert build("seqnet").pooler.output_size == (6, 3)
    square = ("MODEL.ROI_BOX_HEAD.POOLER_SIZE", (), "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7)
    assert build("seqnet", *square).pooler.output_size == (7, 7)


def test_maps_in_half_precision_do_not_move_the_boxes():
    heads = build("seqnet")
    maps = torch.randn(1, 16, 25, 75, generator=torch.Generator().manual_seed(1)).bfloat16()
    # Of these, bfloat16 would make 1004, 300, 1064 and 372.
    boxes = [Boxes(torch.tensor([[1003.0, 301.0, 1061.0, 371.0]]))]

    def pooled(maps):
        return heads._describe_regions(lambda x: {"pooled": x}, {"res4": maps}, boxes)["pooled"]

    assert torch.equal(pooled(maps), pooled(maps.float()))
