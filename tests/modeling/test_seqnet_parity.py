# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The published SeqNet's function, against numbers recorded from its own code.

Weights and images come from the kit beside the numbers. Rows whose order rests on near ties of
scores are matched by box, and every stage is also fed the recorded boxes of the stage before.
"""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

import kdps.modeling  # noqa: F401  (registers the model)
from kdps.checkpoint.convert import convert
from kdps.checkpoint.keymaps.seqnet import SEQNET_RULES
from kdps.config import get_cfg
from kdps.utils.testing_parity import (
    CLASSES,
    PERSON_BOX,
    SIZES,
    assert_close,
    assert_probe,
    inference_record,
    load_kit,
    match_rows,
    published_weights,
    samples_of,
    training_batch,
)


@pytest.fixture(scope="module")
def kit(parity_dir):
    return load_kit(parity_dir)


@pytest.fixture(scope="module")
def recorded(parity_dir):
    return dict(np.load(parity_dir / "seqnet" / "expected.npz"))


@pytest.fixture(scope="module")
def weights(parity_dir, kit):
    return convert({"model": published_weights(parity_dir, kit, "seqnet")}, "seqnet").weights


@pytest.fixture(scope="module")
def model(weights):
    return build(weights).eval()


def build(weights):
    cfg = get_cfg()
    cfg.merge_from_file("configs/CUHK-SYSU/seqnet_R_50_C4.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.REID_HEAD.NUM_PIDS, cfg.MODEL.REID_HEAD.QUEUE_SIZE = 5532, 5000
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 32
    model = build_model(cfg)
    model.load_state_dict(weights)
    return model


@pytest.mark.parametrize("case", [pytest.param("a", marks=pytest.mark.slow), "b"])
def test_inference(case, model, kit, recorded):
    record = inference_record(kit, recorded, case)
    heads = model.roi_heads
    with torch.no_grad():
        images = model.preprocess_image([record])
        features = model.backbone(images.tensor)
        logits, deltas = model.proposal_generator.rpn_head([features["res4"]])
        proposals, _ = model.proposal_generator(images, features, None)
        output = model([record])[0]
    assert_probe(kit, recorded, f"{case}/net_input", images.tensor, atol=1e-6)
    assert_probe(kit, recorded, f"{case}/res4", features["res4"])
    assert_probe(kit, recorded, f"{case}/rpn_logits", logits[0])
    assert_probe(kit, recorded, f"{case}/rpn_deltas", deltas[0])

    boxes = proposals[0].proposal_boxes.tensor
    rows = match_rows(boxes, recorded[f"{case}/proposals"])
    assert_close(boxes[rows], recorded[f"{case}/proposals"], atol=5e-3)
    scores = proposals[0].objectness_logits.sigmoid()[rows]
    assert_close(scores, recorded[f"{case}/proposal_scores"])

    first_stage(case, heads, features, images, kit, recorded)
    second_stage(case, heads, features, kit, recorded)

    found = output["instances"]
    expected = recorded[f"{case}/det_boxes"]
    assert len(found) == len(expected)
    rows = match_rows(found.pred_boxes.tensor, expected)
    assert_close(found.pred_boxes.tensor[rows], expected, atol=5e-3)
    assert_close(found.scores[rows], recorded[f"{case}/det_scores"])
    weighted = (found.pred_embeddings * found.scores[:, None])[rows].numpy()
    assert_close(weighted, recorded[f"{case}/det_embeddings"], atol=2e-5)
    cosines = F.cosine_similarity(
        torch.from_numpy(weighted), torch.from_numpy(recorded[f"{case}/det_embeddings"])
    )
    assert cosines.min() > 1 - 1e-6

    queries = output["queries"]
    assert_close(queries.pred_boxes.tensor, recorded[f"{case}/query_boxes"], atol=5e-3)
    assert_close(queries.pred_embeddings, recorded[f"{case}/query_embeddings"], atol=2e-5)


@torch.no_grad()
def first_stage(case, heads, features, images, kit, recorded):
    """From the recorded proposals to the boxes of stage 1."""
    proposals = Instances(
        images.image_sizes[0],
        proposal_boxes=Boxes(torch.from_numpy(recorded[f"{case}/proposals"])),
    )
    pooled = heads.pooler([features["res4"]], [proposals.proposal_boxes])
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
    record = inference_record(kit, recorded, "b")
    # Another picture of the same size, so that both are padded as they are alone.
    other = dict(record, image=record["image"].flip(2))
    with torch.no_grad():
        alone = [model([x])[0] for x in (other, record)]
        batch = model([other, record])
    assert len(alone[0]["instances"]) != len(alone[1]["instances"])
    for one, two in zip(alone, batch, strict=True):
        for name in ("instances", "queries"):
            rows = match_rows(two[name].pred_boxes.tensor, one[name].pred_boxes.tensor)
            assert_close(two[name].pred_boxes.tensor[rows], one[name].pred_boxes.tensor, atol=5e-3)
            assert_close(two[name].pred_embeddings[rows], one[name].pred_embeddings, atol=2e-5)
        assert_close(two["instances"].scores.sort()[0], one["instances"].scores.sort()[0])


@pytest.fixture(scope="module")
def step(weights, kit, recorded):
    """One training step on both images with the recorded samples: losses and their gradients."""
    model = build(weights)
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

    memory = step.model.roi_heads.reid_predictor.oim.memory
    assert_close(
        memory.table[recorded["train/lut_changed_rows"]], recorded["train/lut_changed_values"], 2e-5
    )
    assert_close(
        memory.queue[recorded["train/cq_changed_rows"]], recorded["train/cq_changed_values"], 2e-5
    )
    assert memory.pointer == recorded["train/header_cq"]

    state = step.model.state_dict()
    for key in recorded:
        if key.startswith("train/after/"):
            name = key.removeprefix("train/after/")
            expected = recorded[key]
            if "bbox_pred" in name:
                expected = expected[PERSON_BOX]
            assert_close(state[new_name(name)], expected, what=name)


@pytest.mark.slow
def test_gradients(step, recorded):
    parameters = dict(step.model.named_parameters())
    frozen = {name for name, p in parameters.items() if p.grad is None}
    assert frozen == {new_name(name) for name in recorded["train/frozen_names"]}
    names = [new_name(name) for name in recorded["train/grad_names"]]
    assert set(names) == parameters.keys() - frozen
    for name, expected in zip(names, recorded["train/grad_norms"], strict=True):
        norm = parameters[name].grad.norm().item()
        assert norm == pytest.approx(float(expected), rel=1e-2, abs=1e-5), name


def new_name(published):
    for rule in SEQNET_RULES:
        found = re.fullmatch(rule.pattern, published)
        if found:
            return found.expand(rule.name)
    raise AssertionError(published)
