# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.structures import Boxes, Instances

from kdps.modeling.roi_heads.refinement import (
    as_proposals,
    detections_as_proposals,
    refine_detections,
)

SIZE = (60, 100)


def test_boxes_become_candidates_inside_their_own_image():
    before = [Instances(SIZE), Instances((30, 40))]
    boxes = [torch.tensor([[-5.0, 10, 120, 70]]), torch.tensor([[1.0, 2, 3, 4], [20, 20, 50, 50]])]
    first, second = as_proposals(boxes, before)
    assert first.image_size == SIZE
    assert first.proposal_boxes.tensor.tolist() == [[0, 10, 100, 60]]
    assert second.proposal_boxes.tensor.tolist() == [[1, 2, 3, 4], [20, 20, 40, 30]]
    assert len(second.objectness_logits) == 2


def detections(scores):
    return Instances(
        SIZE,
        pred_boxes=Boxes(torch.zeros(len(scores), 4)),
        scores=torch.tensor(scores),
        pred_embeddings=torch.arange(len(scores)).float()[:, None],
    )


def test_detections_become_proposals_and_stay_detections():
    found = detections([0.6, 0.7])
    (proposals,) = detections_as_proposals([found])
    assert proposals.image_size == SIZE
    assert torch.equal(proposals.proposal_boxes.tensor, found.pred_boxes.tensor)
    assert set(found.get_fields()) == {"pred_boxes", "scores", "pred_embeddings"}


def test_refined_boxes_suppress_by_score_and_keep_their_fields():
    boxes = torch.tensor([[0.0, 0, 20, 40], [50, 0, 70, 40], [2, 0, 22, 40], [-9, 0, -1, 40]])
    (refined,) = refine_detections([detections([0.6, 0.7, 0.9, 0.8])], [boxes], nms_thresh=0.5)
    # The first overlaps the third by 18 / 22, and the last lies outside of the image.
    assert refined.pred_boxes.tensor.tolist() == [[2, 0, 22, 40], [50, 0, 70, 40]]
    assert refined.scores.tolist() == pytest.approx([0.9, 0.7])
    assert refined.pred_embeddings.flatten().tolist() == [2, 1]


def test_the_threshold_and_the_number_are_the_callers():
    boxes = torch.tensor([[0.0, 0, 20, 40], [50, 0, 70, 40], [2, 0, 22, 40]])
    (found,) = refine_detections([detections([0.6, 0.7, 0.9])], [boxes], nms_thresh=0.85)
    assert len(found) == 3
    (found,) = refine_detections([detections([0.6, 0.7, 0.9])], [boxes], nms_thresh=0.85, topk=2)
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])


def test_images_without_detections():
    (found,) = refine_detections([detections([])], [torch.zeros(0, 4)], nms_thresh=0.5, topk=3)
    assert len(found) == 0
    assert set(found.get_fields()) == {"pred_boxes", "scores", "pred_embeddings"}
