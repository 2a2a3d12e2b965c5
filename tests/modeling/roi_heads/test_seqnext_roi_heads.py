# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import nn

import kdps.modeling  # noqa: F401  (registers the model)
from kdps.errors import KdpsError
from kdps.modeling.roi_heads import LinearOutputLayers, NormAwarePredictions
from kdps.utils.testing import tiny_cfg

SIZE = (64, 96)
SEQNEXT = (
    *("MODEL.ROI_HEADS.NAME", "SeqNeXtROIHeads", "MODEL.REID_HEAD.NAME", "FusedEmbedding"),
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.3),
)
BOXES = [[0.0, 0, 20, 40], [50, 10, 70, 50], [1, 0, 21, 40], [30, 0, 50, 40]]


@pytest.fixture
def heads():
    torch.manual_seed(0)
    return build_model(tiny_cfg(*SEQNEXT)).roi_heads.eval()


class FixedRows(nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.rows = torch.tensor(rows)

    def forward(self, x):
        return self.rows[: len(x)]


@torch.no_grad()
def detect(heads, first_scores, second_scores, batch=1):
    """Stage 1 leaves boxes as they are, so does stage 2."""
    nn.init.zeros_(heads.box_predictor.bbox_pred.weight)
    logits = torch.tensor(first_scores).logit().tolist()
    heads.box_predictor.cls_score = FixedRows([[x, 0.0] for x in logits] * batch)
    logits = torch.tensor(second_scores).logit().tolist()
    heads.reid_predictor.cls_score = FixedRows([[x] for x in logits] * batch)
    nn.init.zeros_(heads.reid_predictor.bbox_pred.weight)
    generator = torch.Generator().manual_seed(1)
    features = {"res4": torch.randn(1, 16, 4, 6, generator=generator).expand(batch, -1, -1, -1)}
    proposals = [Instances(SIZE, proposal_boxes=Boxes(torch.tensor(BOXES))) for _ in range(batch)]
    return heads(None, features, proposals)[0]


def test_scores_are_those_of_the_second_stage(heads):
    # Stage 1 gives the second box, then the fourth and the first; the third overlaps the first.
    (found,) = detect(heads, [0.6, 0.9, 0.5, 0.8], [0.4, 0.7, 0.95])
    assert found.scores.tolist() == pytest.approx([0.95, 0.7, 0.4])
    expected = torch.tensor([BOXES[0], BOXES[3], BOXES[1]])
    torch.testing.assert_close(found.pred_boxes.tensor, expected)


def test_what_either_stage_scores_too_low_is_dropped(heads):
    (found,) = detect(heads, [0.6, 0.9, 0.1, 0.2], [0.2, 0.7])
    torch.testing.assert_close(found.pred_boxes.tensor, torch.tensor([BOXES[0]]))
    norms = found.pred_embeddings.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(1))


def test_images_of_a_batch_keep_their_scores(heads):
    alone = detect(heads, [0.6, 0.9, 0.5, 0.8], [0.4, 0.7, 0.95])[0]
    for found in detect(heads, [0.6, 0.9, 0.5, 0.8], [0.4, 0.7, 0.95], batch=2):
        torch.testing.assert_close(found.scores, alone.scores)
        torch.testing.assert_close(found.pred_embeddings, alone.pred_embeddings)


def test_predictions_by_hand():
    shape = {"res4": ShapeSpec(channels=2), "res5": ShapeSpec(channels=2)}
    layers = LinearOutputLayers(tiny_cfg(*SEQNEXT, "MODEL.REID_HEAD.EMBEDDING_DIM", 4), shape)
    layers.eval()
    layers.cls_score.weight.data = torch.tensor([[1.0, 2.0]])
    layers.bbox_pred.bias.data = torch.tensor([0.1, 0.2, 0.3, 0.4])
    nn.init.zeros_(layers.bbox_pred.weight)
    features = {"res4": torch.tensor([[1.0, 0.0]]), "res5": torch.tensor([[3.0, 4.0]])}
    outputs = layers(features)
    assert outputs.person_logits.tolist() == [11.0]
    torch.testing.assert_close(outputs.deltas, torch.tensor([[0.1, 0.2, 0.3, 0.4]]))
    assert outputs.embeddings.shape == (1, 4)
    assert not [name for name, _ in layers.named_modules() if "rescaler" in name]


def test_golden_classification_loss():
    shape = {"res4": ShapeSpec(channels=2), "res5": ShapeSpec(channels=2)}
    layers = LinearOutputLayers(tiny_cfg(*SEQNEXT, "MODEL.REID_HEAD.EMBEDDING_DIM", 2), shape)
    proposals = Instances(
        SIZE,
        proposal_boxes=Boxes(torch.tensor(BOXES[:2])),
        gt_boxes=Boxes(torch.tensor(BOXES[:2])),
        gt_classes=torch.tensor([0, 1]),
        gt_pids=torch.tensor([1, 1]),
    )
    outputs = NormAwarePredictions(
        torch.zeros(2, 4), torch.tensor([1.0, -2.0]), torch.tensor([[1.0, 0.0]] * 2)
    )
    losses = layers.losses(outputs, [proposals])
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 2
    assert losses["loss_nae_cls"].item() == pytest.approx(expected, rel=1e-5)
    assert losses["loss_nae_box_reg"] == 0


def test_an_embedding_that_scores_is_refused():
    with pytest.raises(KdpsError, match="'NormAwareEmbedding' gives person logits, for which Seq"):
        build_model(tiny_cfg(*SEQNEXT, "MODEL.REID_HEAD.NAME", "NormAwareEmbedding"))
