# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from fixed_rows import FixedRows
from torch import nn

import kdps.modeling  # noqa: F401  (registers the model)
from kdps.utils.testing import make_training_batch, tiny_cfg

SIZE = (64, 96)


@pytest.fixture
def heads():
    torch.manual_seed(0)
    return build_model(tiny_cfg("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.3)).roi_heads.eval()


@pytest.fixture
def features():
    return {"res4": torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(1))}


def proposals_of(boxes):
    return Instances(SIZE, proposal_boxes=Boxes(torch.as_tensor(boxes, dtype=torch.float32)))


def fix_first_stage(heads, scores):
    """Let stage 1 leave boxes as they are and score them in turn."""
    nn.init.zeros_(heads.box_predictor.bbox_pred.weight)
    logits = torch.tensor(scores).logit()
    heads.box_predictor.cls_score = FixedRows(torch.stack([logits, torch.zeros(len(scores))], 1))


def fix_second_stage(heads, deltas):
    heads.reid_predictor.bbox_pred = FixedRows(torch.tensor(deltas))


BOXES = [[0.0, 0, 20, 40], [50, 10, 70, 50], [1, 0, 21, 40], [30, 0, 50, 40]]


@torch.no_grad()
def test_scores_are_those_of_the_first_stage(heads, features):
    # The third box overlaps the first, the fourth is below the threshold.
    fix_first_stage(heads, [0.6, 0.9, 0.5, 0.2])
    fix_second_stage(heads, [[0.0] * 4] * 2)
    found, losses = heads(None, features, [proposals_of(BOXES)])
    assert losses == {}
    assert found[0].scores.tolist() == pytest.approx([0.9, 0.6])
    torch.testing.assert_close(found[0].pred_boxes.tensor, torch.tensor([BOXES[1], BOXES[0]]))


@torch.no_grad()
def test_boxes_are_refined_and_clipped_and_suppressed_again(heads, features):
    fix_first_stage(heads, [0.6, 0.9, 0.1, 0.4])
    # In order of score: one moves out of the image, one on top of the last.
    fix_second_stage(heads, [[20.0, 0, 0, 0], [15.0, 0, 0, 0], [0.0, 0, 0, 0]])
    found, _ = heads(None, features, [proposals_of(BOXES)])
    expected = torch.tensor([[90.0, 10, 96, 50], [30, 0, 50, 40]])
    torch.testing.assert_close(found[0].pred_boxes.tensor, expected)
    assert found[0].scores.tolist() == pytest.approx([0.9, 0.6])


@torch.no_grad()
def test_embeddings_are_of_the_boxes_of_the_first_stage(heads, features):
    fix_first_stage(heads, [0.6, 0.9, 0.1, 0.1])
    fix_second_stage(heads, [[2.0, 0, 0, 0]] * 2)
    found, _ = heads(None, features, [proposals_of(BOXES)])
    embedded = heads.embed_boxes(features, [Boxes(torch.tensor([BOXES[1], BOXES[0]]))])[0]
    torch.testing.assert_close(found[0].pred_embeddings, embedded)


@torch.no_grad()
def test_detections_per_image(heads, features):
    fix_first_stage(heads, [0.6, 0.9, 0.1, 0.4])
    fix_second_stage(heads, [[0.0] * 4] * 3)
    heads.test_topk_per_image = 1
    found, _ = heads(None, features, [proposals_of(BOXES)])
    assert found[0].scores.tolist() == pytest.approx([0.9])


def test_both_stages_sample_the_ground_truth():
    """Each stage's candidates are joined by the annotated boxes, refined or not."""
    torch.manual_seed(0)
    model = build_model(tiny_cfg()).train()
    batch = make_training_batch([[0, 1, 2]])
    sampled, original = [], model.roi_heads.label_and_sample_proposals

    def remember(candidates, targets):
        sampled.append((candidates, original(candidates, targets)))
        return sampled[-1][1]

    model.roi_heads.label_and_sample_proposals = remember
    with EventStorage():
        model(batch)
    gt_boxes = batch[0]["instances"].gt_boxes.tensor
    assert len(sampled) == 2
    for candidates, chosen in sampled:
        boxes = chosen[0].proposal_boxes.tensor
        for box in gt_boxes:
            assert not (candidates[0].proposal_boxes.tensor == box).all(dim=1).any()
            assert (boxes == box).all(dim=1).any()
    second = sampled[1][0][0]
    # Stage 2 refines what stage 1 was given as a sample.
    assert len(second) == len(sampled[0][1][0])
    assert not second.proposal_boxes.tensor.requires_grad


def test_boxes_that_refinement_flattens_are_dropped(heads):
    features = {"res4": torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(1))}
    boxes = Boxes(torch.tensor([[4.0, 4, 20, 50], [90, 4, 96, 50]]))
    found = Instances(SIZE, pred_boxes=boxes, scores=torch.tensor([0.9, 0.8]))
    found.pred_classes = torch.zeros(2, dtype=torch.int64)
    beyond = torch.tensor([[30.0, 4, 50, 60], [120.0, 4, 140, 50]])
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads.reid_predictor, "predict_boxes", lambda *_: [beyond])
        (kept,) = heads._refine(features, [found])
    # Clipped to the image of 96 pixels nothing is left of the second one.
    assert kept.pred_boxes.tensor.tolist() == [[30, 4, 50, 60]]
    assert kept.scores.tolist() == [pytest.approx(0.9)]
