# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

import kdps.modeling  # noqa: F401  (registers the model)
from kdps.errors import KdpsError
from kdps.modeling.roi_heads import NormAwarePredictions, PixelNormAwareOutputLayers
from kdps.utils.testing import make_boxes, tiny_cfg

SIZE = (64, 96)
SHAPE = {"res4": ShapeSpec(channels=4), "res5": ShapeSpec(channels=6)}
NAE_PLUS = (
    *("MODEL.ROI_HEADS.NAME", "PixelNormAwareROIHeads"),
    *("MODEL.REID_HEAD.NAME", "PixelNormAwareEmbedding"),
)


def make_layers():
    torch.manual_seed(0)
    opts = ("MODEL.REID_HEAD.EMBEDDING_DIM", 2, "MODEL.REID_HEAD.OIM_SCALE", 2.0)
    return PixelNormAwareOutputLayers(tiny_cfg(*NAE_PLUS, *opts), SHAPE)


def sampled(classes, gt_box=None):
    """Regions of 16 x 16 pixels, all matched with the same box."""
    count = len(classes)
    proposals = Instances(
        (100, 100),
        proposal_boxes=Boxes(torch.tensor([[0.0, 0.0, 16.0, 16.0]] * count)),
        gt_classes=torch.tensor(classes),
    )
    if gt_box:
        proposals.gt_pids = torch.tensor([1] * count)
        proposals.gt_boxes = Boxes(torch.tensor([gt_box] * count))
    return proposals


def test_golden_losses():
    layers = make_layers()
    layers.oim.memory.table[:2] = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # The box covers the left one of two columns.
    proposals = [sampled([0, 1], [0.0, 0.0, 7.0, 16.0])]
    logits = torch.tensor([[[1.0, -2.0]] * 2, [[0.0, 3.0]] * 2])
    embeddings = torch.tensor([[0.3, 0.4], [1.0, 0.0]])
    losses = layers.losses(NormAwarePredictions(torch.zeros(2, 4), logits, embeddings), proposals)

    def softplus(x):
        return math.log(1 + math.exp(x))

    cls = (softplus(-1) + softplus(-2) + softplus(0) + softplus(3)) / 4
    assert losses["loss_nae_cls"].item() == pytest.approx(cls, rel=1e-5)
    # OIM sees the embedding of the person, shorter than 1 as it is.
    oim = math.log(math.exp(0.6) + math.exp(0.8)) - 0.8
    assert losses["loss_oim"].item() == pytest.approx(oim, rel=1e-5)
    torch.testing.assert_close(
        layers.oim.memory.table[1], torch.nn.functional.normalize(torch.tensor([0.15, 0.7]), dim=0)
    )


def test_cells_of_images_without_people_are_background():
    logits = torch.full((2, 2, 2), -1.0)
    losses = make_layers().losses(
        NormAwarePredictions(torch.zeros(2, 4), logits, torch.zeros(2, 2)), [sampled([1, 1])]
    )
    assert losses["loss_nae_cls"].item() == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-5)
    assert losses["loss_oim"] == 0


def test_boxes_are_regressed_from_means():
    layers = make_layers().eval()
    maps = {"res4": torch.randn(2, 4, 4, 4), "res5": torch.randn(2, 6, 2, 2)}
    deltas = layers(maps).deltas
    torch.testing.assert_close(deltas, layers.bbox_pred(maps["res5"].flatten(2).mean(dim=2)))


@pytest.fixture
def heads():
    torch.manual_seed(0)
    opts = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "MODEL.ROI_HEADS.NMS_THRESH_TEST", 1.0)
    return build_model(tiny_cfg(*NAE_PLUS, *opts)).roi_heads.eval()


@pytest.fixture
def features():
    return {"res4": torch.randn(2, 16, 4, 6, generator=torch.Generator().manual_seed(1))}


def test_scores_are_means_over_the_best_of_the_image(heads):
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0, -1.0, 0.0]).reshape(3, 1, 2)
    outputs = NormAwarePredictions(torch.zeros(3, 4), logits, torch.zeros(3, 2))
    first, none, second = heads._scores(outputs, [2, 0, 1])
    p = torch.tensor([0.0, 1.0, 2.0, 3.0]).sigmoid()
    torch.testing.assert_close(first, torch.stack([(p[0] + p[1]) / (p[2] + p[3]), torch.ones(())]))
    assert len(none) == 0
    # What the other image scores does not matter.
    assert second.tolist() == [1.0]
    # So far below zero that all sigmoids are zero.
    outputs = NormAwarePredictions(
        torch.zeros(1, 4), torch.full((1, 1, 2), -200.0), torch.ones(1, 2)
    )
    assert heads._scores(outputs, [1])[0].tolist() == [0.0]


def test_detections_of_a_batch_are_those_of_its_images(heads, features):
    generator = torch.Generator().manual_seed(2)
    proposals = [Instances(SIZE, proposal_boxes=make_boxes(n, *SIZE, generator)) for n in (4, 0, 3)]
    features = {"res4": features["res4"][[0, 1, 1]]}
    with torch.no_grad():
        together, _ = heads(None, features, proposals)
        for i, own in enumerate(proposals):
            (alone,), _ = heads(None, {"res4": features["res4"][i : i + 1]}, [own])
            assert len(alone) == len(own)
            for name in ("scores", "pred_embeddings"):
                torch.testing.assert_close(together[i].get(name), alone.get(name))
            if len(own):
                assert together[i].scores[0] == 1
                norms = together[i].pred_embeddings.norm(dim=1)
                torch.testing.assert_close(norms, torch.ones(len(own)))


def test_a_box_head_without_maps_is_refused():
    opts = (
        *("MODEL.ROI_BOX_HEAD.NAME", "TransformerBoxHead", "MODEL.COAT.DIM", 16),
        *("MODEL.COAT.OUTPUT_CHANNELS", 24, "MODEL.COAT.NUM_HEADS", 2),
    )
    with pytest.raises(KdpsError, match=r"ROI_BOX_HEAD.NAME: PixelNormAwareROIHeads needs a head"):
        build_model(tiny_cfg(*NAE_PLUS, *opts))
