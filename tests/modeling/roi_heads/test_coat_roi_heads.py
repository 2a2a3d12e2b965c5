# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from fixed_rows import FixedRows
from torch import nn

import kdps.modeling  # noqa: F401  (registers the model)
from kdps.errors import KdpsError
from kdps.utils.testing import TINY_RCNNS, make_test_batch, make_training_batch, tiny_cfg

SIZE = (64, 96)
WEIGHTS = [[10.0, 10.0, 5.0, 5.0]] * 3
BOXES = [[0.0, 0, 20, 40], [50, 10, 70, 50], [1, 0, 21, 40], [30, 0, 50, 40]]


def build(*opts):
    torch.manual_seed(0)
    return build_model(tiny_cfg(*TINY_RCNNS["coat"], *opts))


@pytest.fixture
def heads():
    opts = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.3, "MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.4)
    return build(*opts).roi_heads.eval()


@pytest.fixture
def features():
    return {"res4": torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(1))}


def fix_stages(heads, scores, *deltas):
    """Let stage 1 leave boxes as they are and score them in turn, and later stages move them."""
    nn.init.zeros_(heads.box_predictor.bbox_pred.weight)
    logits = torch.tensor(scores).logit()
    rows = torch.stack([logits, torch.zeros(len(scores))], dim=1)
    heads.box_predictor.cls_score = FixedRows(rows.tolist())
    for predictor, own in zip(heads.reid_predictors, deltas, strict=True):
        predictor.bbox_pred = FixedRows(own)


def detect(heads, features, boxes=BOXES):
    proposals = Instances(SIZE, proposal_boxes=Boxes(torch.tensor(boxes)))
    with torch.no_grad():
        found, losses = heads(None, features, [proposals])
    assert losses == {}
    return found[0]


STAY = [0.0] * 4


def test_each_stage_moves_the_boxes_and_scores_are_those_of_the_first(heads, features):
    # The third box overlaps the first, the fourth is below the threshold. Boxes are 20 wide, so
    # that a delta of 5 is 10 pixels.
    fix_stages(
        heads, [0.6, 0.9, 0.5, 0.2], [[5.0, 0, 0, 0], STAY], [[5.0, 0, 0, 0], [-5.0, 0, 0, 0]]
    )
    found = detect(heads, features)
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    torch.testing.assert_close(
        found.pred_boxes.tensor, torch.tensor([[70.0, 10, 90, 50], [0.0, 0, 10, 40]])
    )
    assert found.pred_classes.tolist() == [0, 0]


def test_boxes_are_suppressed_after_each_stage(heads, features):
    # Box 3 is moved over box 0, by 12 / 28: too much after stage 2, where the threshold is 0.4.
    closer = [-11.0, 0, 0, 0]
    fix_stages(heads, [0.6, 0.9, 0.1, 0.4], [STAY, STAY, closer], [STAY, STAY])
    assert detect(heads, features).scores.tolist() == pytest.approx([0.9, 0.6])
    # After stage 3, where it is 0.5, so much may stay.
    fix_stages(heads, [0.6, 0.9, 0.1, 0.4], [STAY] * 3, [STAY, STAY, closer])
    assert detect(heads, features).scores.tolist() == pytest.approx([0.9, 0.6, 0.4])
    heads.test_nms_thresh = 0.4
    assert detect(heads, features).scores.tolist() == pytest.approx([0.9, 0.6])


def test_embeddings_are_of_the_boxes_of_the_last_stage_but_one(heads, features):
    fix_stages(heads, [0.6, 0.9, 0.1, 0.1], [[2.0, 0, 0, 0]] * 2, [[2.0, 0, 0, 0]] * 2)
    found = detect(heads, features)
    for predictor in heads.reid_predictors:
        predictor.bbox_pred = FixedRows([STAY] * 2)
    moved = torch.tensor([BOXES[1], BOXES[0]]) + torch.tensor([4.0, 0, 4, 0])
    with torch.no_grad():
        embedded = heads.embed_boxes(features, [Boxes(moved)])[0]
    torch.testing.assert_close(found.pred_embeddings, embedded)


def test_regions_are_pooled_once_for_all_stages_that_embed_them(heads, features):
    pooled = []
    heads.pooler.register_forward_hook(lambda *args: pooled.append(len(args[2])))
    boxes = Boxes(torch.tensor([[2.0, 4, 20, 50], [30, 10, 50, 60]]))
    with torch.no_grad():
        heads.embed_boxes(features, [boxes])
    assert len(heads.reid_box_heads) == 2
    assert pooled == [2]


def test_an_embedding_joins_those_of_all_stages(heads, features):
    boxes = Boxes(torch.tensor(BOXES))
    with torch.no_grad():
        joined = heads.embed_boxes(features, [boxes])[0]
        pooled = heads.pooler([features["res4"]], [boxes])
        parts = [
            predictor(head(pooled)).embeddings
            for head, predictor in zip(heads.reid_box_heads, heads.reid_predictors, strict=True)
        ]
    assert joined.shape == (4, 16)
    torch.testing.assert_close(joined.norm(dim=1), torch.ones(4))
    # Similarities are the means of those of the stages.
    means = (parts[0] @ parts[0].T + parts[1] @ parts[1].T) / 2
    torch.testing.assert_close(joined @ joined.T, means)


def run_step(model, batch):
    """Losses of a step, and what each stage was offered and has sampled."""
    sampled, original = [], model.roi_heads.label_and_sample_proposals

    def remember(candidates, targets):
        sampled.append((candidates, original(candidates, targets)))
        return sampled[-1][1]

    model.roi_heads.label_and_sample_proposals = remember
    with EventStorage() as storage:
        losses = model.train()(batch)
    return losses, sampled, storage


def test_the_overlap_that_makes_a_person_grows_from_stage_to_stage():
    model, batch = build(), make_training_batch([[0, 1, 2], [3]])
    # So that there is something between the thresholds.
    nn.init.normal_(model.roi_heads.box_predictor.bbox_pred.weight, std=0.5)
    between = 0
    _, sampled, storage = run_step(model, batch)
    assert len(sampled) == 3
    for (_, chosen), iou in zip(sampled, (0.5, 0.6, 0.7), strict=True):
        for own, record in zip(chosen, batch, strict=True):
            overlaps = pairwise_iou(own.proposal_boxes, record["instances"].gt_boxes)
            best = overlaps.max(dim=1).values
            assert torch.equal(own.gt_classes == 0, best >= iou)
            between += int(((best > 0.3) & (best < 0.7)).sum())
    assert between > 0
    names = {f"stage{i}/roi_head/num_{kind}_samples" for i in (1, 2, 3) for kind in ("fg", "bg")}
    assert names <= set(storage.latest())


def test_every_stage_samples_the_ground_truth_and_trains_no_box_of_another():
    # A sample so large that it takes all candidates.
    model = build("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 256)
    batch = make_training_batch([[0, 1, 2]])
    _, sampled, _ = run_step(model, batch)
    for candidates, chosen in sampled:
        boxes = chosen[0].proposal_boxes.tensor
        for box in batch[0]["instances"].gt_boxes.tensor:
            assert not (candidates[0].proposal_boxes.tensor == box).all(dim=1).any()
            assert (boxes == box).all(dim=1).any()
        assert not boxes.requires_grad
    for (_, chosen), (candidates, _) in zip(sampled, sampled[1:], strict=False):
        assert len(candidates[0]) == len(chosen[0])


def test_each_stage_has_a_memory_of_its_own():
    model = build()
    run_step(model, make_training_batch([[0, 1, -1], [4]]))
    first, second = (p.oim.memory for p in model.roi_heads.reid_predictors)
    for memory in (first, second):
        assert memory.table.any(dim=1).nonzero().flatten().tolist() == [0, 1, 4]
    assert not torch.allclose(first.table, second.table)


def test_losses_of_each_stage_have_the_weights_of_the_config():
    losses = {}
    for name in ("plain", "weighted"):
        weight = 1.0 if name == "plain" else 3.0
        keys = ("LOSS_WEIGHT", "ID_LOSS_WEIGHT", "CLS_LOSS_WEIGHT", "BBOX_REG_LOSS_WEIGHT")
        model = build(*(x for key in keys for x in (f"MODEL.REID_HEAD.{key}", weight)))
        for predictor in model.roi_heads.reid_predictors:
            nn.init.eye_(predictor.oim.memory.table)
        torch.manual_seed(1)
        losses[name] = run_step(model, make_training_batch([[0, 1, -1], [4]]))[0]
    kinds = ("loss_nae_cls", "loss_nae_box_reg", "loss_oim", "loss_id")
    weighted = {f"{kind}_stage{stage}" for kind in kinds for stage in (2, 3)}
    assert losses["plain"].keys() == weighted | {
        *("loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg")
    }
    for name, loss in losses["plain"].items():
        assert loss > 0
        factor = 3 if name in weighted else 1
        torch.testing.assert_close(losses["weighted"][name], factor * loss)


def test_without_known_identities_there_is_no_classifier():
    for opts in (("MODEL.REID_HEAD.NUM_PIDS", -1), ("MODEL.REID_HEAD.ID_LOSS_WEIGHT", 0.0)):
        assert not [name for name in build(*opts).state_dict() if ".id_loss." in name]


def test_another_box_head_and_more_stages():
    ious = [0.4, 0.5, 0.6, 0.7]
    model = build(
        *("MODEL.ROI_BOX_HEAD.NAME", "TinyBoxHead", "MODEL.COAT.REID_BOX_HEAD", "TinyBoxHead"),
        *("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", ious, "MODEL.ROI_HEADS.IOU_THRESHOLDS", [0.4]),
        *("MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", WEIGHTS + [[30.0, 30.0, 15.0, 15.0]]),
        *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
    )
    losses, sampled, _ = run_step(model, make_training_batch([[0, 1]]))
    assert len(sampled) == 4
    assert "loss_oim_stage4" in losses
    weights = [p.box2box_transform.weights for p in model.roi_heads.reid_predictors]
    assert [tuple(w) for w in weights] == [(10, 10, 5, 5), (10, 10, 5, 5), (30, 30, 15, 15)]
    with torch.no_grad():
        found = model.eval()(make_test_batch([1]))[0]["instances"]
    assert found.pred_embeddings.shape[1] == 3 * 8


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (
            ("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", [0.5, 0.6]),
            "CASCADE_HEAD: IOUS and BBOX_REG_WEIGHTS must have one entry .*, not 2 and 3",
        ),
        (
            *(
                ("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", [0.5])
                + ("MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", WEIGHTS[:1]),
            ),
            "at least 2 stages, not 1 and 1",
        ),
        (
            ("MODEL.ROI_HEADS.IOU_THRESHOLDS", [0.4]),
            r"IOU_THRESHOLDS: must be \[0.5\], the first of MODEL.ROI_BOX_CASCADE_HEAD.IOUS",
        ),
        (
            ("MODEL.COAT.REID_BOX_HEAD", "Foo"),
            "REID_BOX_HEAD: unknown value 'Foo'; known: .*OccludedTransformerBoxHead",
        ),
    ],
)
def test_impossible_cascades(opts, message):
    with pytest.raises(KdpsError, match=message):
        build(*opts)
