# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import ImageList
from detectron2.utils.events import EventStorage

import kdps.modeling  # noqa: F401  (registers the model)
from kdps.utils.testing import make_training_batch, tiny_cfg


def rpn_losses(batch_size, pids):
    """Losses of Detectron2's class and of ours on the same sampled anchors."""
    torch.manual_seed(0)
    model = build_model(tiny_cfg("MODEL.RPN.BATCH_SIZE_PER_IMAGE", batch_size)).train()
    batch = make_training_batch(pids)
    images = ImageList.from_tensors([x["image"] for x in batch], 16)
    instances = [x["instances"] for x in batch]
    rpn = model.proposal_generator
    features = model.backbone(images.tensor)
    logits, deltas = rpn.rpn_head([features["res4"]])
    logits = [x.permute(0, 2, 3, 1).flatten(1) for x in logits]
    deltas = [
        x.view(len(batch), -1, 4, *x.shape[-2:]).permute(0, 3, 4, 1, 2).flatten(1, -2)
        for x in deltas
    ]
    anchors = rpn.anchor_generator([features["res4"]])
    with EventStorage():
        labels, boxes = rpn.label_and_sample_anchors(anchors, instances)
        args = (anchors, logits, labels, deltas, boxes)
        return RPN.losses(rpn, *args), rpn.losses(*args), labels


def test_equals_detectron2_where_it_samples_all_it_wants():
    theirs, ours, _ = rpn_losses(8, [[0, 1], [2]])
    assert theirs["loss_rpn_loc"] > 0
    for name, loss in theirs.items():
        assert ours[name].item() == pytest.approx(loss.item())


@pytest.mark.parametrize("pids", [[[0, 1], [2]], [[], [0]], [[]]], ids=str)
def test_losses_are_averaged_over_the_anchors_there_are(pids):
    # A map of 4 x 6 cells with 2 anchors has fewer than 256.
    theirs, ours, labels = rpn_losses(256, pids)
    sampled = sum(int((x >= 0).sum()) for x in labels)
    assert 0 < sampled < 256 * len(pids)
    for name, loss in theirs.items():
        assert ours[name].item() == pytest.approx(loss.item() * 256 * len(pids) / sampled)
