# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What the heads of all two-stage methods share."""

import pytest
import torch
from detectron2.modeling import build_model

import kdps.modeling  # noqa: F401  (registers the models)
from kdps.errors import KdpsError
from kdps.utils.testing import TINY_METHODS, make_boxes, tiny_cfg

METHODS = pytest.mark.parametrize("method", TINY_METHODS)
SIZE = (64, 96)


def build(method, *opts):
    torch.manual_seed(0)
    return build_model(tiny_cfg(*TINY_METHODS[method], *opts)).roi_heads.eval()


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
