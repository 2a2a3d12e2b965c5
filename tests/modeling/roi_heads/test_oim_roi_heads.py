# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from fixed_rows import FixedRows

import kdps.modeling  # noqa: F401  (registers the model)
from kdps.errors import KdpsError
from kdps.structures.input_size import InputSize
from kdps.utils.testing import TINY_RCNNS, tiny_cfg

SIZE = (64, 96)
OIM = (
    *(*TINY_RCNNS["oim"], "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.3),
    *("MODEL.REID_HEAD.EMBEDDING_DIM", 2, "MODEL.REID_HEAD.OIM_SCALE", 2.0),
)
BOXES = [[0.0, 0, 19, 39], [50, 10, 69, 49], [1, 0, 20, 39], [30, 0, 49, 39]]
STILL = [0.0] * 4


def build(*opts):
    torch.manual_seed(0)
    return build_model(tiny_cfg(*OIM, *opts)).roi_heads


@pytest.fixture
def heads():
    return build().eval()


@pytest.fixture
def features():
    return {"res4": torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(1))}


def fix(heads, scores, deltas, directions):
    """Let the heads predict the same, whatever they see."""
    logits = [[math.log(s / (1 - s)), 0.0] for s in scores]
    heads.box_predictor.cls_score = FixedRows(logits)
    heads.box_predictor.bbox_pred = FixedRows(deltas)
    heads.embedding_head.projector = FixedRows(directions)


def detect(heads, features, scores, deltas=None, size=SIZE):
    directions = [[1.0, float(i)] for i in range(len(scores))]
    fix(heads, scores, deltas or [STILL] * len(scores), directions)
    proposals = Instances(size, proposal_boxes=Boxes(torch.tensor(BOXES)))
    with torch.no_grad():
        (found,), losses = heads(None, features, [proposals])
    assert losses == {}
    return found


def test_an_embedding_head_with_a_classifier_of_its_own_is_refused():
    with pytest.raises(KdpsError, match="'NormAwareEmbedding' gives person logits, for which OIM"):
        build("MODEL.REID_HEAD.NAME", "NormAwareEmbedding")


def test_the_classifier_gives_the_score(heads, features):
    # The third box overlaps the first, the fourth is below the threshold.
    found = detect(heads, features, [0.6, 0.9, 0.5, 0.2])
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    torch.testing.assert_close(found.pred_boxes.tensor, torch.tensor([BOXES[1], BOXES[0]]))
    expected = torch.tensor([[0.5**0.5, 0.5**0.5], [1.0, 0.0]])
    torch.testing.assert_close(found.pred_embeddings, expected)


def test_boxes_are_moved_by_their_width_with_the_last_pixel(heads, features):
    # A shift by half the width (deltas have a weight of 10), and twice the height (of 5).
    deltas = [[5.0, 0, 0, 0], [0.0, 0, 0, 5 * math.log(1.5)], STILL, STILL]
    found = detect(heads, features, [0.6, 0.9, 0.1, 0.1], deltas)
    # 20 wide: by 10. 40 high become 60, which ends at the last pixel, 63.
    torch.testing.assert_close(
        found.pred_boxes.tensor, torch.tensor([[50.0, 0, 69, 59], [10, 0, 29, 39]])
    )


def test_a_pixel_is_one_of_the_original_image(heads, features):
    deltas = [[5.0, 0, 0, 0], STILL, STILL, STILL]
    found = detect(heads, features, [0.6, 0.1, 0.1, 0.1], deltas, InputSize(SIZE, 3.0))
    # 22 wide now: by 11.
    torch.testing.assert_close(found.pred_boxes.tensor, torch.tensor([[11.0, 0, 30, 39]]))


def test_boxes_end_at_the_last_pixel(heads, features):
    deltas = [STILL, [20.0, 10.0, 0, 0], STILL, STILL]
    found = detect(heads, features, [0.1, 0.9, 0.1, 0.1], deltas)
    assert found.pred_boxes.tensor.tolist() == [[90, 50, 95, 63]]


def sampled():
    """A person whose box is 2 pixels further right, and a background region."""
    return Instances(
        SIZE,
        proposal_boxes=Boxes(torch.tensor(BOXES[:2])),
        gt_boxes=Boxes(torch.tensor([[2.0, 0, 21, 39]] * 2)),
        gt_classes=torch.tensor([0, 1]),
        gt_pids=torch.tensor([1, 3]),
    )


def test_golden_losses(features):
    heads = build("MODEL.REID_HEAD.LOSS_WEIGHT", 3.0).train()
    heads.label_and_sample_proposals = lambda *_: [sampled()]
    heads.oim.memory.table[:2] = torch.eye(2)
    fix(heads, [0.6, 0.2], [[0.5, 0.0, 0.0, 0.0], [9.0] * 4], [[3.0, 4.0], [1.0, 0.0]])
    with EventStorage():
        _, losses = heads(None, features, [None], [None])
    # The target is 10 * 2 / 20 = 1, over both regions.
    oim = math.log(math.exp(1.2) + math.exp(1.6)) - 1.6
    assert losses["loss_cls"].item() == pytest.approx(-(math.log(0.6) + math.log(0.8)) / 2)
    assert losses["loss_box_reg"].item() == pytest.approx(0.5 * 0.5**2 / 2, rel=1e-5)
    assert losses["loss_oim"].item() == pytest.approx(3 * oim, rel=1e-5)
    # The background region carries identity 3, which is not its own.
    assert heads.oim.memory.table.any(dim=1).tolist() == [True, True, False, False, False]


def test_proposals_overlap_with_their_last_pixels(features):
    heads = build().train()
    # 10 of 19 pixels with the last ones, 9 of 18 (a half) without.
    near = [[0.0, 0, 13, 9], [0, 0, 100, 60]]
    targets = Instances(
        SIZE,
        gt_boxes=Boxes(torch.tensor([[4.0, 0, 17, 9]])),
        gt_classes=torch.tensor([0]),
        gt_pids=torch.tensor([2]),
    )
    proposals = Instances(
        SIZE, proposal_boxes=Boxes(torch.tensor(near)), objectness_logits=torch.zeros(2)
    )
    # 10 of 18 pixels is more than this, 9 of 17 less.
    heads.proposal_matcher.thresholds[1] = 0.54
    with EventStorage():
        (found,) = heads.label_and_sample_proposals([proposals], [targets])
    classes = {
        tuple(b): c
        for b, c in zip(
            found.proposal_boxes.tensor.tolist(), found.gt_classes.tolist(), strict=True
        )
    }
    assert classes[tuple(near[0])] == 0
    assert classes[tuple(near[1])] == 1
    assert (found.gt_boxes.tensor == targets.gt_boxes.tensor).all()
