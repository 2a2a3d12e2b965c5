# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The published SeqNet's function, against numbers recorded from its own code.

Weights and images come from the kit beside the numbers. Rows whose order rests on near ties of
scores are matched by box, and every stage is also fed the recorded boxes of the stage before.
"""

from types import SimpleNamespace

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from parity_assertions import (
    assert_a_batch_changes_nothing,
    assert_close,
    assert_gradients,
    assert_memory,
    assert_output,
    assert_probe,
    assert_proposals,
)
from parity_kit import (
    CLASSES,
    PERSON_BOX,
    SIZES,
    build_published,
    inference_record,
    renamed,
    samples_of,
    training_batch,
)

from kdps.checkpoint.keymaps.seqnet import SEQNET_RULES

METHOD = RECORDED_AS = "seqnet"


@pytest.fixture(scope="module")
def model(weights):
    return build_published(METHOD, weights).eval()


@pytest.mark.parametrize("case", [pytest.param("a", marks=pytest.mark.slow), "b"])
def test_inference(case, model, kit, recorded):
    size, features = assert_proposals(model, kit, recorded, case)
    first_stage(case, model.roi_heads, features, size, kit, recorded)
    second_stage(case, model.roi_heads, features, kit, recorded)
    with torch.no_grad():
        (output,) = model([inference_record(kit, recorded, case)])
    assert_output(output, recorded, case)


@torch.no_grad()
def first_stage(case, heads, features, size, kit, recorded):
    """From the recorded proposals to the boxes of stage 1."""
    boxes = Boxes(torch.from_numpy(recorded[f"{case}/proposals"]))
    proposals = Instances(size, proposal_boxes=boxes)
    pooled = heads.pooler([features["res4"]], [boxes])
    assert_probe(kit, recorded, f"{case}/stage1_pool", pooled)
    described = heads.box_head(pooled)
    for name in ("res4", "res5"):
        key = f"{case}/stage1_feat_{name}"
        assert_probe(kit, recorded, key, described[name][:, :, None, None])
    predictions = heads.box_predictor(described["res5"])
    assert_close(predictions[0], recorded[f"{case}/stage1_cls_logits"][:, CLASSES])
    assert_close(predictions[1], recorded[f"{case}/stage1_regs"][:, PERSON_BOX])
    kept, _ = heads.box_predictor.inference(predictions, [proposals])
    assert_close(kept[0].pred_boxes.tensor, recorded[f"{case}/stage1_boxes"], atol=5e-3)
    assert_close(kept[0].scores, recorded[f"{case}/stage1_scores"])


@torch.no_grad()
def second_stage(case, heads, features, kit, recorded):
    """From the recorded boxes of stage 1 to embeddings."""
    boxes = Boxes(torch.from_numpy(recorded[f"{case}/stage1_boxes"]))
    pooled = heads.pooler([features["res4"]], [boxes])
    assert_probe(kit, recorded, f"{case}/stage2_pool", pooled)
    described = heads.reid_box_head(pooled)
    for name in ("res4", "res5"):
        key = f"{case}/stage2_feat_{name}"
        assert_probe(kit, recorded, key, described[name][:, :, None, None])
    outputs = heads.reid_predictor(described)
    assert_close(outputs.deltas, recorded[f"{case}/stage2_regs"][:, PERSON_BOX])
    assert_close(outputs.embeddings, recorded[f"{case}/stage2_embeddings"], atol=2e-5)
    assert_close(outputs.person_logits, recorded[f"{case}/stage2_norm_logits"])


@pytest.mark.slow
def test_an_image_in_a_batch_has_the_result_it_has_alone(model, kit, recorded):
    """The public code takes the scores of the first image for all."""
    assert_a_batch_changes_nothing(model, inference_record(kit, recorded, "b"))


@pytest.fixture(scope="module")
def step(weights, kit, recorded):
    """One training step on both images with the recorded samples: losses and their gradients."""
    model = build_published(METHOD, weights)
    batch = training_batch(kit, recorded)
    for case, record in zip(SIZES, batch, strict=True):
        boxes = record["instances"].gt_boxes.tensor
        assert_close(boxes, recorded[f"train/{case}/scaled_gt"])

    seen = SimpleNamespace(candidates=[], anchors=None)
    label_anchors = model.proposal_generator.label_and_sample_anchors

    def remember_anchors(*args):
        seen.anchors = label_anchors(*args)
        return seen.anchors

    def recorded_samples(candidates, targets):
        stage = len(seen.candidates) + 1
        seen.candidates.append(candidates)
        return samples_of(recorded, stage, targets)

    with pytest.MonkeyPatch.context() as patch, EventStorage():
        # Samplers take the first ones, as in the recorded run.
        patch.setattr(torch, "randperm", lambda n, device=None: torch.arange(n, device=device))
        patch.setattr(model.proposal_generator, "label_and_sample_anchors", remember_anchors)
        patch.setattr(model.roi_heads, "label_and_sample_proposals", recorded_samples)
        losses = model.train()(batch)
    sum(losses.values()).backward()
    return SimpleNamespace(losses=losses, model=model, **vars(seen))


@pytest.mark.slow
def test_training_step(step, recorded):
    names = {
        "loss_rpn_cls": "loss_rpn_cls",
        "loss_rpn_loc": "loss_rpn_reg",
        "loss_cls": "loss_proposal_cls",
        "loss_box_reg": "loss_proposal_reg",
        "loss_nae_cls": "loss_box_cls",
        "loss_nae_box_reg": "loss_box_reg",
        "loss_oim": "loss_box_reid",
    }
    assert step.losses.keys() == names.keys()
    for ours, theirs in names.items():
        value = step.losses[ours].item()
        assert value == pytest.approx(float(recorded[f"train/weighted/{theirs}"]), rel=1e-4), ours

    for case, labels in zip(SIZES, step.anchors[0], strict=True):
        for name, label in (("pos", 1), ("neg", 0)):
            expected = recorded[f"train/{case}/rpn_{name}_anchor_inds"].tolist()
            assert (labels == label).nonzero().flatten().tolist() == expected

    proposals, refined = step.candidates
    for i, case in enumerate(SIZES):
        # The recorded counts are after the ground truth joined.
        assert len(proposals[i]) == recorded[f"train/{case}/rpn_proposals_count"]
        assert_close(
            refined[i].proposal_boxes.tensor, recorded[f"train/{case}/stage2_candidates"], atol=5e-3
        )

    assert_memory(step.model.roi_heads.reid_predictor.oim.memory, recorded)
    state = step.model.state_dict()
    for key in recorded:
        if key.startswith("train/after/"):
            name = key.removeprefix("train/after/")
            expected = recorded[key]
            if "bbox_pred" in name:
                expected = expected[PERSON_BOX]
            assert_close(state[renamed(name, SEQNET_RULES)], expected, what=name)


@pytest.mark.slow
def test_gradients(step, recorded):
    parameters = dict(step.model.named_parameters())
    frozen = {name for name, p in parameters.items() if p.grad is None}
    assert frozen == {renamed(name, SEQNET_RULES) for name in recorded["train/frozen_names"]}
    assert_gradients(parameters, recorded, SEQNET_RULES)
