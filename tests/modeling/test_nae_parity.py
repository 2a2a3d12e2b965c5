# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The published NAE's function, against numbers recorded from its own code.

Weights and images come from the kit beside the numbers. Rows whose order rests on near ties of
scores are matched by box, and the heads are also fed the recorded proposals.
"""

from types import SimpleNamespace

import pytest
import torch
from detectron2.structures import Boxes
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
    PERSON_BOX,
    SIZES,
    build_published,
    inference_record,
    renamed,
    samples_of,
    training_batch,
)

from kdps.checkpoint.keymaps.nae import NAE_RULES

METHOD = RECORDED_AS = "nae"


@pytest.fixture(scope="module")
def model(weights):
    return build_published(METHOD, weights).eval()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["a", "b"])
@torch.no_grad()
def test_inference(case, model, kit, recorded):
    _, features = assert_proposals(model, kit, recorded, case)
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

    (output,) = model([inference_record(kit, recorded, case)])
    assert_output(output, recorded, case)


@pytest.mark.slow
def test_an_image_in_a_batch_has_the_result_it_has_alone(model, kit, recorded):
    assert_a_batch_changes_nothing(model, inference_record(kit, recorded, "b"))


@pytest.fixture(scope="module")
def step(weights, kit, recorded):
    """One training step on both images with the recorded samples: losses and their gradients."""
    # The recorded losses are without weights.
    model = build_published(METHOD, weights, "MODEL.REID_HEAD.BBOX_REG_LOSS_WEIGHT", 1.0)
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

    assert_memory(step.model.roi_heads.reid_predictor.oim.memory, recorded)


@pytest.mark.slow
def test_gradients(step, recorded):
    parameters = dict(step.model.named_parameters())
    frozen = {name for name, p in parameters.items() if p.grad is None}
    # Its classifier has no part in the loss.
    theirs = [name for name in recorded["train/no_grad_names"] if "cls_score" not in name]
    assert frozen == {renamed(name, NAE_RULES) for name in theirs}
    assert_gradients(parameters, recorded, NAE_RULES)
