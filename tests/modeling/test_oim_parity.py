# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The function of a public OIM-Net, against numbers recorded from its own code.

Weights and images come from the kit beside the numbers. Rows whose order rests on near ties of
scores are matched by box, and the heads are also fed the recorded proposals.
"""

from types import SimpleNamespace

import pytest
import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from parity_assertions import (
    assert_a_batch_changes_nothing,
    assert_close,
    assert_gradients,
    assert_output,
    assert_probe,
    match_rows,
)
from parity_kit import CLASSES, PERSON_BOX, SIZES, build_published

from kdps.checkpoint.keymaps.oim import OIM_RULES
from kdps.data.opencv_resize import ResizeShortestEdgeOpenCV

METHOD, RECORDED_AS = "oim", "oimnet"
ANCHORS = 9
# The public code lets the rows of the lookup table be, unlike the paper.
AS_THERE = ("MODEL.REID_HEAD.OIM_NORMALISE", False)


@pytest.fixture(scope="module")
def model(weights):
    # The threshold of the recorded run.
    threshold = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.75)
    return build_published(METHOD, weights, *AS_THERE, *threshold).eval()


def mapped(kit, case, size=320, largest=512):
    """Pixels as the mapper makes them, (3, H, W) in the order BGR, and the transform."""
    image = kit.make_image(case, *SIZES[case])[:, :, ::-1]
    transform = ResizeShortestEdgeOpenCV(size, largest).get_transform(image)
    return torch.from_numpy(transform.apply_image(image).transpose(2, 0, 1).copy()), transform


def record_of(kit, recorded, case):
    image, transform = mapped(kit, case)
    height, width = SIZES[case]
    queries = Instances(
        tuple(image.shape[1:]),
        boxes=Boxes(torch.as_tensor(transform.apply_box(recorded[f"{case}/query_boxes"])).float()),
        query_ids=torch.arange(4),
    )
    return {"image": image, "height": height, "width": width, "queries": queries}


@pytest.mark.parametrize("number", range(6))
def test_preprocessing(number, model, kit, recorded):
    key = f"pre/{number}"
    image = kit.make_image(f"pre{number}", *recorded[f"{key}/in_size"])[:, :, ::-1]
    transform = ResizeShortestEdgeOpenCV(600, 1000).get_transform(image)
    assert transform.scale == pytest.approx(float(recorded[f"{key}/scale"]))
    pixels = torch.from_numpy(transform.apply_image(image).transpose(2, 0, 1).copy())
    assert list(pixels.shape[1:]) == recorded[f"{key}/resized_size"].tolist()
    images = model.preprocess_image([{"image": pixels}])
    assert_probe(kit, recorded, f"{key}/tensor", images.tensor[0], atol=1e-3)


def test_anchors(model, recorded):
    cells = next(iter(model.proposal_generator.anchor_generator.cell_anchors))
    # Around the middle of the first cell; there the last pixel is inside.
    theirs = torch.from_numpy(recorded["anchors_base"]) - torch.tensor([8.0, 8, 7, 7])
    assert torch.equal(cells, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["a", "b"])
@torch.no_grad()
def test_inference(case, model, kit, recorded):
    record = record_of(kit, recorded, case)
    images = model.preprocess_image([record])
    features = model.backbone(images.tensor)
    logits, deltas = model.proposal_generator.rpn_head([features["res4"]])
    proposals, _ = model.proposal_generator(images, features, None)
    output = model([record])[0]
    assert_probe(kit, recorded, f"{case}/net_input", images.tensor[0], atol=1e-3)
    assert_probe(kit, recorded, f"{case}/res4_3", features["res4"])
    assert_probe(kit, recorded, f"{case}/rpn_deltas", deltas[0])

    boxes = proposals[0].proposal_boxes.tensor
    expected = recorded[f"{case}/proposals"][:, 1:]
    rows = match_rows(boxes, expected)
    assert_close(boxes[rows], expected, atol=5e-3)

    heads = model.roi_heads
    pooled = heads.pooler([features["res4"]], [Boxes(torch.from_numpy(expected))])
    assert_probe(kit, recorded, f"{case}/pool", pooled)
    described = heads.box_head(pooled)
    assert_probe(kit, recorded, f"{case}/head_feature", described["res5"])
    logits, deltas = heads.box_predictor(described["res5"])
    assert_close(logits, recorded[f"{case}/cls_logits"][:, CLASSES])
    assert_close(deltas, recorded[f"{case}/deltas"][:, PERSON_BOX])
    embeddings, _ = heads.embedding_head(described)
    assert_close(embeddings, recorded[f"{case}/features"], atol=2e-5)

    assert_output(output, recorded, case, "features", weighted=False)


@pytest.mark.slow
def test_an_image_in_a_batch_has_the_result_it_has_alone(model, kit, recorded):
    """The public code takes one image at a time."""
    assert_a_batch_changes_nothing(model, record_of(kit, recorded, "b"))


@pytest.fixture(scope="module")
def step(weights, kit, recorded):
    """One training step on image a with the recorded samples: losses and their gradients."""
    model = build_published(METHOD, weights, *AS_THERE)
    image, _ = mapped(kit, "a")
    gt = torch.from_numpy(recorded["train/gt_boxes_scaled"])
    instances = Instances(
        tuple(image.shape[1:]),
        gt_boxes=Boxes(gt[:, :4]),
        gt_classes=torch.zeros(len(gt), dtype=torch.int64),
        gt_pids=gt[:, 5].long(),
    )
    height, width = SIZES["a"]
    record = {"image": image, "instances": instances, "height": height, "width": width}
    model.roi_heads.oim.memory.pointer.copy_(torch.from_numpy(recorded["train/tail_before"]))
    seen = SimpleNamespace(candidates=None, matched_labels=None)
    rpn = model.proposal_generator
    label_anchors = rpn.label_and_sample_anchors

    def recorded_anchors(anchors, gt_instances):
        # Without sampling first, to see who matches; then those that were drawn there.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rpn, "_subsample_labels", lambda labels: labels)
            (seen.matched_labels,), boxes = label_anchors(anchors, gt_instances)
        drawn = torch.full_like(seen.matched_labels, -1)
        where = torch.from_numpy(recorded["train/anchor_labels_nonneg_inds"])
        drawn[_ours(where, image)] = torch.from_numpy(recorded["train/anchor_labels_nonneg"]).to(
            drawn
        )
        seen.drawn = drawn
        return [drawn], boxes

    def recorded_samples(candidates, targets):
        seen.candidates = candidates
        labels = torch.from_numpy(recorded["train/sampled_cls_labels"])
        boxes = Boxes(torch.from_numpy(recorded["train/sampled_proposals"][:, 1:]))
        pids = torch.from_numpy(recorded["train/sampled_pid_labels"])
        matched = pairwise_iou(boxes, targets[0].gt_boxes).argmax(dim=1)
        return [
            Instances(
                targets[0].image_size,
                proposal_boxes=boxes,
                gt_boxes=targets[0].gt_boxes[matched],
                gt_classes=1 - labels,
                gt_pids=pids.clamp(min=-1),
            )
        ]

    with pytest.MonkeyPatch.context() as patch, EventStorage():
        patch.setattr(rpn, "label_and_sample_anchors", recorded_anchors)
        patch.setattr(model.roi_heads, "label_and_sample_proposals", recorded_samples)
        losses = model.train()([record])
    sum(losses.values()).backward()
    return SimpleNamespace(losses=losses, model=model, **vars(seen))


def _ours(where, image):
    """Places in (anchor, y, x), as recorded, as ours in (y, x, anchor)."""
    height, width = (side // 16 for side in image.shape[1:])
    anchor, place = where // (height * width), where % (height * width)
    return place * ANCHORS + anchor


@pytest.mark.slow
def test_training_step(step, recorded):
    names = {
        "loss_rpn_cls": "rpn_loss_cls",
        "loss_rpn_loc": "rpn_loss_bbox",
        "loss_cls": "loss_cls",
        "loss_box_reg": "loss_bbox",
        "loss_oim": "loss_oim",
    }
    assert step.losses.keys() == names.keys()
    # Those that were drawn there are matched alike here.
    drawn = step.drawn >= 0
    assert torch.equal(step.matched_labels[drawn], step.drawn[drawn])
    assert len(step.candidates[0]) == recorded["train/rpn_proposals_count"]
    first = step.candidates[0].proposal_boxes.tensor
    expected = recorded["train/rpn_proposals_first64"][:, 1:]
    distance = torch.cdist(torch.from_numpy(expected), first, p=torch.inf).min(dim=1).values
    assert distance.max() < 5e-3
    for ours, theirs in names.items():
        value = step.losses[ours].item()
        assert value == pytest.approx(float(recorded[f"train/{theirs}"]), rel=1e-4), ours


@pytest.mark.slow
def test_memory(step, recorded):
    memory = step.model.roi_heads.oim.memory
    rows = recorded["train/lut_changed_rows"]
    assert_close(memory.table[rows], recorded["train/lut_changed_values"], 2e-5)
    # The public code writes the first 64 numbers of an embedding into the queue only.
    rows = recorded["train/queue_changed_rows"]
    assert_close(memory.queue[rows, :64], recorded["train/queue_changed_values"][:, :64], 2e-5)
    torch.testing.assert_close(memory.queue[rows].norm(dim=1), torch.ones(len(rows)))
    assert memory.pointer == recorded["train/tail_after"]


@pytest.mark.slow
def test_gradients(step, recorded):
    parameters = dict(step.model.named_parameters())
    assert not any(p.requires_grad for p in step.model.backbone.stem.parameters())
    # Two logits that move apart there are their difference here.
    rpn = "proposal_generator.rpn_head.objectness_logits"
    factors = dict.fromkeys((f"{rpn}.weight", f"{rpn}.bias"), 2**0.5)
    assert_gradients(parameters, recorded, OIM_RULES, factors)
