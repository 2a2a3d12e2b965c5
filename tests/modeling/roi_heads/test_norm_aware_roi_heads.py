# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from torch import nn

import kdps.modeling  # noqa: F401  (registers the model)
from kdps.errors import KdpsError
from kdps.modeling.roi_heads import NormAwarePredictions
from kdps.utils.testing import TINY_RCNNS, make_training_batch, tiny_cfg

SIZE = (64, 96)
NAE = (*TINY_RCNNS["nae"], "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.3)
BOXES = [[0.0, 0, 20, 40], [50, 10, 70, 50], [1, 0, 21, 40], [30, 0, 50, 40]]


def build(*opts):
    torch.manual_seed(0)
    return build_model(tiny_cfg(*NAE, *opts))


@pytest.fixture
def heads():
    return build().roi_heads.eval()


@pytest.fixture
def features():
    return {"res4": torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(1))}


class Fixed(nn.Module):
    """Predicts the same, whatever it sees."""

    def __init__(self, predictor, scores, deltas):
        super().__init__()
        self.predict_boxes = predictor.predict_boxes
        logits, deltas = torch.tensor(scores).logit(), torch.tensor(deltas)
        embeddings = torch.eye(len(scores), 16)
        self.predictions = NormAwarePredictions(deltas, logits, embeddings)

    def forward(self, described):
        return self.predictions


def detect(heads, features, scores, deltas=None):
    heads.reid_predictor = Fixed(heads.reid_predictor, scores, deltas or [[0.0] * 4] * len(scores))
    proposals = Instances(SIZE, proposal_boxes=Boxes(torch.tensor(BOXES)))
    with torch.no_grad():
        found, losses = heads(None, features, [proposals])
    assert losses == {}
    return found[0]


def test_the_length_of_the_embedding_is_the_score(heads, features):
    # The third box overlaps the first, the fourth is below the threshold.
    found = detect(heads, features, [0.6, 0.9, 0.5, 0.2])
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    torch.testing.assert_close(found.pred_boxes.tensor, torch.tensor([BOXES[1], BOXES[0]]))
    assert found.pred_classes.tolist() == [0, 0]
    # Rows stay with their boxes, and are not weighted by the score.
    assert found.pred_embeddings.argmax(dim=1).tolist() == [1, 0]
    assert found.pred_embeddings.norm(dim=1).tolist() == [1, 1]


def test_boxes_are_regressed_before_the_suppression(heads, features):
    # The third one moves away from the first; the second one out of the image and is clipped.
    still = [0.0] * 4
    deltas = [still, [20.0, 0, 0, 0], [-5.0, 2.5, 0, 0], still]
    found = detect(heads, features, [0.6, 0.9, 0.5, 0.2], deltas)
    expected = torch.tensor([[90.0, 10, 96, 50], [0, 0, 20, 40], [0, 10, 11, 50]])
    torch.testing.assert_close(found.pred_boxes.tensor, expected)
    assert found.pred_embeddings.argmax(dim=1).tolist() == [1, 0, 2]


def test_detections_per_image(heads, features):
    heads.test_topk_per_image = 1
    assert len(detect(heads, features, [0.6, 0.9, 0.5, 0.4])) == 1


def test_boxes_that_regression_puts_outside_are_dropped(heads, features):
    deltas = [[0.0] * 4, [200.0, 0, 0, 0], [0.0] * 4, [0.0] * 4]
    found = detect(heads, features, [0.6, 0.9, 0.1, 0.1], deltas)
    assert found.scores.tolist() == pytest.approx([0.6])


def test_regions_between_background_and_person_are_left_out():
    model = build("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 200).train()
    batch = make_training_batch([[0, 1, 2]])
    sampled, original = [], model.roi_heads.label_and_sample_proposals

    def remember(*args):
        sampled.extend(original(*args))
        return sampled

    model.roi_heads.label_and_sample_proposals = remember
    with EventStorage():
        model(batch)
    overlap = pairwise_iou(batch[0]["instances"].gt_boxes, sampled[0].proposal_boxes).max(dim=0)[0]
    person = sampled[0].gt_classes == 0
    assert person.any()
    assert (~person).any()
    assert (overlap[person] >= 0.5).all()
    assert (overlap[~person] < 0.1).all()


def test_an_embedding_without_person_logits_is_refused():
    with pytest.raises(KdpsError, match=r"REID_HEAD.NAME: 'LinearEmbedding' gives no person"):
        build("MODEL.REID_HEAD.NAME", "LinearEmbedding")
