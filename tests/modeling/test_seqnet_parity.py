# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The published SeqNet's function, against numbers recorded from its own code.

Weights and images come from the kit beside the numbers. Rows whose order rests on near ties of
scores are matched by box, and every stage is also fed the recorded boxes of the stage before.
"""

import importlib.util
import json
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
from kdps.checkpoint.convert import convert_seqnet
from kdps.checkpoint.keymaps.seqnet import SEQNET_RULES
from kdps.config import get_cfg

SIZES = {"a": (240, 360), "b": (300, 200)}  # height, width
# Ours (person, background) are theirs (background, person).
CLASSES = [1, 0]
PERSON_BOX = slice(4, 8)


@pytest.fixture(scope="module")
def kit(parity_dir):
    spec = importlib.util.spec_from_file_location("parity_kit", parity_dir / "kit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recorded(parity_dir):
    return dict(np.load(parity_dir / "seqnet" / "expected.npz"))


@pytest.fixture(scope="module")
def weights(parity_dir, kit):
    spec = json.loads((parity_dir / "seqnet" / "state_dict.json").read_text())
    arrays = kit.make_state_dict(spec, kit.GAINS["seqnet"])
    return convert_seqnet({"model": {k: torch.as_tensor(v) for k, v in arrays.items()}})


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


def network_input(kit, recorded, case):
    """Pixels of the network input: the float resize of torchvision's detectors."""
    image = torch.from_numpy(kit.make_image(case, *SIZES[case])).permute(2, 0, 1)
    size = tuple(recorded[f"{case}/resized_size"].tolist())
    return F.interpolate(image[None].float(), size=size, mode="bilinear", align_corners=False)[0]


def to_network(boxes, case, image):
    height, width = SIZES[case]
    scale = [image.shape[2] / width, image.shape[1] / height] * 2
    return Boxes(torch.as_tensor(boxes) * torch.tensor(scale))


def make_input(kit, recorded, case):
    image = network_input(kit, recorded, case)
    queries = Instances(
        tuple(image.shape[1:]),
        boxes=to_network(recorded[f"{case}/query_boxes"], case, image),
        query_ids=torch.arange(4),
    )
    height, width = SIZES[case]
    return {"image": image, "height": height, "width": width, "queries": queries}


def assert_probe(kit, recorded, key, tensor, atol=1e-4):
    """Compare a large tensor at the recorded positions and in its statistics."""
    assert list(tensor.shape) == recorded[f"{key}/shape"].tolist(), key
    values = tensor.detach().double().numpy().ravel()
    close(values[kit.probe_indices(values.size)], recorded[f"{key}/probe"], atol, key)
    statistics = [values.mean(), values.std(), np.abs(values).max()]
    close(np.array(statistics), recorded[f"{key}/mean_std"], atol, key)


def close(actual, expected, atol=1e-4, what=""):
    np.testing.assert_allclose(
        np.asarray(actual), np.asarray(expected), rtol=1e-4, atol=atol, err_msg=what
    )


def match(boxes, expected):
    """For each expected box the row of the nearest box; every row is used once."""
    rows = torch.cdist(torch.as_tensor(expected), boxes, p=torch.inf).argmin(dim=1)
    assert sorted(rows.tolist()) == list(range(len(boxes)))
    return rows


@pytest.mark.parametrize("case", [pytest.param("a", marks=pytest.mark.slow), "b"])
def test_inference(case, model, kit, recorded):
    record = make_input(kit, recorded, case)
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
    rows = match(boxes, recorded[f"{case}/proposals"])
    close(boxes[rows], recorded[f"{case}/proposals"], atol=5e-3)
    scores = proposals[0].objectness_logits.sigmoid()[rows]
    close(scores, recorded[f"{case}/proposal_scores"])

    first_stage(case, heads, features, images, kit, recorded)
    second_stage(case, heads, features, kit, recorded)

    found = output["instances"]
    expected = recorded[f"{case}/det_boxes"]
    assert len(found) == len(expected)
    rows = match(found.pred_boxes.tensor, expected)
    close(found.pred_boxes.tensor[rows], expected, atol=5e-3)
    close(found.scores[rows], recorded[f"{case}/det_scores"])
    weighted = (found.pred_embeddings * found.scores[:, None])[rows].numpy()
    close(weighted, recorded[f"{case}/det_embeddings"], atol=2e-5)
    cosines = F.cosine_similarity(
        torch.from_numpy(weighted), torch.from_numpy(recorded[f"{case}/det_embeddings"])
    )
    assert cosines.min() > 1 - 1e-6

    queries = output["queries"]
    close(queries.pred_boxes.tensor, recorded[f"{case}/query_boxes"], atol=5e-3)
    close(queries.pred_embeddings, recorded[f"{case}/query_embeddings"], atol=2e-5)


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
    close(predictions[0], recorded[f"{case}/stage1_cls_logits"][:, CLASSES])
    close(predictions[1], recorded[f"{case}/stage1_regs"][:, PERSON_BOX])
    kept, _ = heads.box_predictor.inference(predictions, [proposals])
    close(kept[0].pred_boxes.tensor, recorded[f"{case}/stage1_boxes"], atol=5e-3)
    close(kept[0].scores, recorded[f"{case}/stage1_scores"])


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
    close(outputs.deltas, recorded[f"{case}/stage2_regs"][:, PERSON_BOX])
    close(outputs.embeddings, recorded[f"{case}/stage2_embeddings"], atol=2e-5)
    close(outputs.person_logits, recorded[f"{case}/stage2_norm_logits"])


@pytest.mark.slow
def test_an_image_in_a_batch_has_the_result_it_has_alone(model, kit, recorded):
    """The public code takes the scores of the first image for all."""
    record = make_input(kit, recorded, "b")
    # Another picture of the same size, so that both are padded as they are alone.
    other = dict(record, image=record["image"].flip(2))
    with torch.no_grad():
        alone = [model([x])[0] for x in (other, record)]
        batch = model([other, record])
    assert len(alone[0]["instances"]) != len(alone[1]["instances"])
    for one, two in zip(alone, batch, strict=True):
        for name in ("instances", "queries"):
            rows = match(two[name].pred_boxes.tensor, one[name].pred_boxes.tensor)
            close(two[name].pred_boxes.tensor[rows], one[name].pred_boxes.tensor, atol=5e-3)
            close(two[name].pred_embeddings[rows], one[name].pred_embeddings, atol=2e-5)
        close(two["instances"].scores.sort()[0], one["instances"].scores.sort()[0])


@pytest.fixture(scope="module")
def step(weights, kit, recorded):
    """One training step on both images with the recorded samples: losses and their gradients."""
    model = build(weights)
    batch = []
    for case in SIZES:
        image = network_input(kit, recorded, case)
        boxes = to_network(recorded[f"train/{case}/gt_boxes"], case, image)
        close(boxes.tensor, recorded[f"train/{case}/scaled_gt"], atol=1e-4)
        pids = pids_of(recorded[f"train/{case}/gt_pids"])
        instances = Instances(
            tuple(image.shape[1:]),
            gt_boxes=boxes,
            gt_classes=torch.zeros(len(boxes), dtype=torch.int64),
            gt_pids=pids,
        )
        batch.append({"image": image, "instances": instances})

    seen = SimpleNamespace(candidates=[], anchors=None)
    label_anchors = model.proposal_generator.label_and_sample_anchors

    def remember_anchors(*args):
        seen.anchors = label_anchors(*args)
        return seen.anchors

    def recorded_samples(candidates, targets):
        stage = len(seen.candidates) + 1
        seen.candidates.append(candidates)
        return [
            samples_of(recorded, case, stage, target)
            for case, target in zip(SIZES, targets, strict=True)
        ]

    with pytest.MonkeyPatch.context() as patch, EventStorage():
        # Samplers take the first ones, as in the recorded run.
        patch.setattr(torch, "randperm", lambda n, device=None: torch.arange(n, device=device))
        patch.setattr(model.proposal_generator, "label_and_sample_anchors", remember_anchors)
        patch.setattr(model.roi_heads, "label_and_sample_proposals", recorded_samples)
        losses = model.train()(batch)
    sum(losses.values()).backward()
    return SimpleNamespace(losses=losses, model=model, batch=batch, **vars(seen))


def pids_of(published):
    """0 background and 5555 unlabelled become -1; identities count from 1 there."""
    pids = torch.as_tensor(published)
    return torch.where((pids == 0) | (pids == 5555), 0, pids) - 1


def samples_of(recorded, case, stage, target):
    key = f"train/{case}/stage{stage}"
    matched = torch.from_numpy(recorded[f"{key}_matched"])
    pids = torch.from_numpy(recorded[f"{key}_pids"])
    return Instances(
        target.image_size,
        proposal_boxes=Boxes(torch.from_numpy(recorded[f"{key}_boxes"])),
        gt_boxes=target.gt_boxes[matched],
        gt_classes=(pids == 0).long(),
        gt_pids=target.gt_pids[matched],
    )


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
        close(
            refined[i].proposal_boxes.tensor, recorded[f"train/{case}/stage2_candidates"], atol=5e-3
        )

    memory = step.model.roi_heads.reid_predictor.oim.memory
    close(
        memory.table[recorded["train/lut_changed_rows"]], recorded["train/lut_changed_values"], 2e-5
    )
    close(
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
            close(state[new_name(name)], expected, what=name)


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
