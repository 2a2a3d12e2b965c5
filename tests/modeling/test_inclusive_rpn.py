# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

import kdps.modeling  # noqa: F401  (registers the model)
from kdps.structures.input_size import InputSize
from kdps.utils.testing import tiny_cfg

SIZE = (100, 120)


@pytest.fixture
def rpn():
    torch.manual_seed(0)
    cfg = tiny_cfg(
        *("MODEL.PROPOSAL_GENERATOR.NAME", "InclusiveRPN", "MODEL.PROPOSAL_GENERATOR.MIN_SIZE", 10),
        *("MODEL.RPN.PRE_NMS_TOPK_TEST", 2, "MODEL.RPN.IOU_THRESHOLDS", [0.3, 0.7]),
    )
    return build_model(cfg).proposal_generator.eval()


def boxes(*rows):
    return Boxes(torch.tensor(rows, dtype=torch.float32))


def propose(rpn, anchors, logits, size=SIZE, deltas=None):
    deltas = torch.zeros(1, len(logits), 4) if deltas is None else torch.tensor([deltas])
    with torch.no_grad():
        (found,) = rpn.predict_proposals(
            [boxes(*anchors)], [torch.tensor([logits])], [deltas], [size]
        )
    return found.proposal_boxes.tensor.tolist()


def test_the_last_corner_of_a_proposal_is_a_pixel_of_it(rpn):
    assert propose(rpn, [[10, 20, 30, 60]], [1.0]) == [[10, 20, 29, 59]]


def test_proposals_are_clipped_to_the_last_pixel(rpn):
    assert propose(rpn, [[-10, -20, 500, 600]], [1.0]) == [[0, 0, 119, 99]]


def test_small_ones_go_before_the_best_are_chosen(rpn):
    # Two may take part: not the best, which is 9 pixels wide.
    anchors = [[0, 0, 9, 40], [20, 0, 30, 40], [40, 0, 50, 10], [60, 0, 90, 40]]
    found = propose(rpn, anchors, [4.0, 3.0, 2.0, 1.0])
    assert found == [[20, 0, 29, 39], [40, 0, 49, 9]]


def test_the_least_side_is_in_pixels_of_the_original_image(rpn):
    anchors = [[0, 0, 19, 40], [30, 0, 50, 40]]
    assert len(propose(rpn, anchors, [2.0, 1.0], InputSize(SIZE, 1.0))) == 2
    assert propose(rpn, anchors, [2.0, 1.0], InputSize(SIZE, 2.0)) == [[30, 0, 49, 39]]


def test_worse_ones_that_overlap_are_suppressed(rpn):
    found = propose(rpn, [[0, 0, 20, 40], [1, 0, 21, 40]], [1.0, 2.0])
    assert found == [[1, 0, 20, 39]]


def test_a_side_may_grow_further_than_in_detectron2(rpn):
    (found,) = propose(rpn, [[0, 0, 1, 40]], [1.0], (100, 10**6), deltas=[[0.0, 0, 5.0, 0]])
    assert found[2] == pytest.approx(0.5 + 0.5 * torch.tensor(5.0).exp().item() - 1, rel=1e-5)


def test_infinities_end_a_training_and_are_left_out_of_a_test(rpn):
    anchors = [[0, 0, 20, 40], [30, 0, 50, 40]]
    assert propose(rpn, anchors, [torch.nan, 1.0]) == [[30, 0, 49, 39]]
    with pytest.raises(FloatingPointError, match="diverged"):
        propose(rpn.train(), anchors, [torch.nan, 1.0])


def label(rpn, anchors, gt):
    targets = Instances(SIZE, gt_boxes=gt)
    rpn._subsample_labels = lambda labels: labels
    (labels,), (matched,) = rpn.label_and_sample_anchors([boxes(*anchors)], [targets])
    return labels.tolist(), matched.tolist()


def test_anchors_that_cross_the_border_do_not_even_match(rpn):
    # The first one overlaps more, but begins outside; the last one ends at the border.
    anchors = [[-1, 0, 21, 41], [4, 0, 26, 41], [100, 60, 120, 100]]
    labels, matched = label(rpn, anchors, boxes([0, 0, 20, 40]))
    assert labels == [-1, 1, 0]
    # With its last pixel.
    assert matched[1] == [0, 0, 21, 41]


def test_no_anchor_inside_and_nobody_there(rpn):
    labels, _ = label(rpn, [[-1, 0, 21, 41]], boxes([0, 0, 20, 40]))
    assert labels == [-1]
    labels, _ = label(rpn, [[0, 0, 21, 41], [-1, 0, 5, 5]], Boxes(torch.zeros(0, 4)))
    assert labels == [0, -1]
