# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The published NAE's function, against numbers recorded from its own code.

Weights and images come from the kit beside the numbers. Rows whose order rests on near ties of
scores are matched by box, and the heads are also fed the recorded proposals.
"""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

import kdps.modeling  # noqa: F401  (registers the model)
from kdps.checkpoint.convert import convert
from kdps.checkpoint.keymaps.nae import NAE_RULES
from kdps.config import get_cfg
from kdps.utils.testing_parity import (
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
    return dict(np.load(parity_dir / "nae" / "expected.npz"))


@pytest.fixture(scope="module")
def weights(parity_dir, kit):
    return convert({"model": published_weights(parity_dir, kit, "nae")}, "nae").weights


@pytest.fixture(scope="module")
def model(weights):
    return build(weights).eval()


def build(weights, *opts):
    cfg = get_cfg()
    cfg.merge_from_file("configs/CUHK-SYSU/nae_R_50_C4.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.REID_HEAD.NUM_PIDS, cfg.MODEL.REID_HEAD.QUEUE_SIZE = 5532, 5000
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 32
    cfg.merge_from_list(opts)
    model = build_model(cfg)
    model.load_state_dict(weights)
    return model


@pytest.mark.parametrize("case", [pytest.param("a", marks=pytest.mark.slow), "b"])
@torch.no_grad()
def test_inference(case, model, kit, recorded):
    record = inference_record(kit, recorded, case)
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

    heads = model.roi_heads
    pooled = heads.pooler(
        [features["res4"]], [Boxes(torch.from_numpy(recorded[f"{case}/proposals"]))]
    )
    assert_probe(kit, recorded, f"{case}/pool", pooled)
    described = heads.box_head(pooled)
    for name in ("res4", "res5"):
        key = f"{case}/feat_{name}"
        assert_probe(kit, recorded, key, described[name][:, :, None, None])
    outputs = heads.reid_predictor(described)
    assert_close(outputs.deltas, recorded[f"{case}/regs"][:, PERSON_BOX])
    assert_close(outputs.embeddings, recorded[f"{case}/embeddings"], atol=2e-5)
    assert_close(outputs.person_logits, recorded[f"{case}/norm_logits"])

    found = output["instances"]
    expected = recorded[f"{case}/det_boxes"]
    assert len(found) == len(expected)
    rows = match_rows(found.pred_boxes.tensor, expected)
    assert_close(found.pred_boxes.tensor[rows], expected, atol=5e-3)
    assert_close(found.scores[rows], recorded[f"{case}/det_scores"])
    # The public code weights them by the score.
    weighted = (found.pred_embeddings * found.scores[:, None])[rows]
    assert_close(weighted, recorded[f"{case}/det_embeddings"], atol=2e-5)
    cosines = F.cosine_similarity(weighted, torch.from_numpy(recorded[f"{case}/det_embeddings"]))
    assert cosines.min() > 1 - 1e-6

    queries = output["queries"]
    assert_close(queries.pred_boxes.tensor, recorded[f"{case}/query_boxes"], atol=5e-3)
    assert_close(queries.pred_embeddings, recorded[f"{case}/query_embeddings"], atol=2e-5)


@pytest.mark.slow
@torch.no_grad()
def test_an_image_in_a_batch_has_the_result_it_has_alone(model, kit, recorded):
    record = inference_record(kit, recorded, "b")
    # Another picture of the same size, so that both are padded as they are alone.
    other = dict(record, image=record["image"].flip(2))
    alone = [model([x])[0] for x in (other, record)]
    batch = model([other, record])
    for one, two in zip(alone, batch, strict=True):
        for name in ("instances", "queries"):
            rows = match_rows(two[name].pred_boxes.tensor, one[name].pred_boxes.tensor)
            assert_close(two[name].pred_boxes.tensor[rows], one[name].pred_boxes.tensor, atol=5e-3)
            assert_close(two[name].pred_embeddings[rows], one[name].pred_embeddings, atol=2e-5)
        assert_close(two["instances"].scores.sort()[0], one["instances"].scores.sort()[0])


@pytest.fixture(scope="module")
def step(weights, kit, recorded):
    """One training step on both images with the recorded samples: losses and their gradients."""
    # The recorded losses are without weights.
    model = build(weights, "MODEL.REID_HEAD.BBOX_REG_LOSS_WEIGHT", 1.0)
    seen = SimpleNamespace(candidates=None, sampled=None)
    sample = model.roi_heads.label_and_sample_proposals

    def recorded_samples(candidates, targets):
        seen.candidates = [len(c) for c in candidates]
        seen.sampled = sample(candidates, targets)
        return samples_of(recorded, None, targets)

    with pytest.MonkeyPatch.context() as patch, EventStorage():
        # Samplers take the first ones, as in the recorded run.
        patch.setattr(torch, "randperm", lambda n, device=None: torch.arange(n, device=device))
        patch.setattr(model.roi_heads, "label_and_sample_proposals", recorded_samples)
        losses = model.train()(training_batch(kit, recorded))
    sum(losses.values()).backward()
    return SimpleNamespace(losses=losses, model=model, **vars(seen))


@pytest.mark.slow
def test_training_step(step, recorded):
    names = {
        "loss_rpn_cls": "loss_objectness",
        "loss_rpn_loc": "loss_rpn_box_reg",
        "loss_nae_cls": "loss_detection",
        "loss_nae_box_reg": "loss_box_reg",
        "loss_oim": "loss_reid",
    }
    assert step.losses.keys() == names.keys()
    for ours, theirs in names.items():
        value = step.losses[ours].item()
        assert value == pytest.approx(float(recorded[f"train/{theirs}"]), rel=1e-4), ours

    for case, count, sampled in zip(SIZES, step.candidates, step.sampled, strict=True):
        assert count == recorded[f"train/{case}/rpn_proposals_count"]
        # What lies between background and person is left out, as there.
        expected = recorded[f"train/{case}/pids"]
        assert (sampled.gt_classes == 0).sum() == (expected > 0).sum()
        assert len(sampled) == len(expected)

    memory = step.model.roi_heads.reid_predictor.oim.memory
    for name, ours in (("lut", memory.table), ("cq", memory.queue)):
        rows = recorded[f"train/{name}_changed_rows"]
        assert_close(ours[rows], recorded[f"train/{name}_changed_values"], 2e-5)
    assert memory.pointer == recorded["train/header_cq"]


@pytest.mark.slow
def test_gradients(step, recorded):
    parameters = dict(step.model.named_parameters())
    frozen = {name for name, p in parameters.items() if p.grad is None}
    # Its classifier has no part in the loss.
    theirs = [name for name in recorded["train/no_grad_names"] if "cls_score" not in name]
    assert frozen == {new_name(name) for name in theirs}
    names = [new_name(name) for name in recorded["train/grad_names"]]
    assert set(names) == parameters.keys() - frozen
    for name, expected in zip(names, recorded["train/grad_norms"], strict=True):
        norm = parameters[name].grad.norm().item()
        assert norm == pytest.approx(float(expected), rel=1e-2, abs=1e-5), name


def new_name(published):
    for rule in NAE_RULES:
        found = re.fullmatch(rule.pattern, published)
        if found:
            return found.expand(rule.name)
    raise AssertionError(published)
