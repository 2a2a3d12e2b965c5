# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances

from kdps.modeling.roi_heads import NormAwareOutputLayers, NormAwarePredictions
from kdps.utils.testing import tiny_cfg

SHAPE = {"res4": ShapeSpec(channels=4), "res5": ShapeSpec(channels=6)}


def make_layers(*opts):
    torch.manual_seed(0)
    cfg = tiny_cfg("MODEL.REID_HEAD.EMBEDDING_DIM", 2, "MODEL.REID_HEAD.OIM_SCALE", 2.0, *opts)
    return NormAwareOutputLayers(cfg, SHAPE)


def sampled(classes, pids=None, boxes=None, gt_boxes=None):
    count = len(classes)
    default = [[0.0, 0.0, 10.0, 20.0]] * count
    proposals = Instances(
        (100, 100),
        proposal_boxes=Boxes(torch.tensor(boxes or default)),
        gt_classes=torch.tensor(classes),
    )
    if pids is not None:
        proposals.gt_pids = torch.tensor(pids)
        proposals.gt_boxes = Boxes(torch.tensor(gt_boxes or default))
    return proposals


def predictions(deltas, logits, embeddings):
    return NormAwarePredictions(*(torch.tensor(x) for x in (deltas, logits, embeddings)))


def test_golden_losses():
    layers = make_layers()
    layers.oim.memory.table[:2] = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # The person's box is 1 to the right and twice as high: deltas 10 * 0.1 and 5 * log 2.
    proposals = sampled([0, 1], [1, 1], gt_boxes=[[1.0, -10.0, 11.0, 30.0]] * 2)
    outputs = predictions(
        [[0.5, 0.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0]], [1.0, -2.0], [[0.6, 0.8], [1.0, 0.0]]
    )
    losses = layers.losses(outputs, [proposals])
    cls = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 2
    # dx is off by 0.5 (quadratic), dh by 5 log 2 (linear); over both regions.
    box = (0.5 * 0.5**2 + (5 * math.log(2) - 0.5)) / 2
    oim = math.log(math.exp(1.2) + math.exp(1.6)) - 1.6
    assert losses["loss_nae_cls"].item() == pytest.approx(cls, rel=1e-5)
    assert losses["loss_nae_box_reg"].item() == pytest.approx(box, rel=1e-5)
    assert losses["loss_oim"].item() == pytest.approx(oim, rel=1e-5)


def test_background_regions_carry_a_pid_that_is_not_theirs():
    layers = make_layers()
    outputs = predictions([[0.0] * 4] * 3, [0.0] * 3, [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    layers.losses(outputs, [sampled([0, 1, 0], [2, 3, -1])])
    memory = layers.oim.memory
    assert memory.table.any(dim=1).nonzero().flatten().tolist() == [2]
    assert memory.queue.any(dim=1).nonzero().flatten().tolist() == [0]
    torch.testing.assert_close(memory.queue[0], torch.tensor([0.6, 0.8]))


def test_images_with_and_without_people_in_one_batch():
    layers = make_layers()
    outputs = predictions([[0.0] * 4] * 2, [0.0] * 2, [[1.0, 0.0], [0.0, 1.0]])
    losses = layers.losses(outputs, [sampled([1]), sampled([0], [4])])
    assert all(loss.isfinite() for loss in losses.values())
    assert layers.oim.memory.table[4].tolist() == [0.0, 1.0]


def test_loss_weights_come_from_the_config():
    outputs = predictions([[1.0] * 4], [0.0], [[1.0, 0.0]])
    proposals = [sampled([0], [0])]

    def losses_with(*opts):
        layers = make_layers(*opts)
        layers.oim.memory.table[:2] = torch.eye(2)
        return layers.losses(outputs, proposals)

    plain = losses_with()
    weights = {"CLS_LOSS_WEIGHT": 2.0, "BBOX_REG_LOSS_WEIGHT": 3.0, "LOSS_WEIGHT": 5.0}
    opts = [x for name, w in weights.items() for x in (f"MODEL.REID_HEAD.{name}", w)]
    weighted = losses_with(*opts)
    for (name, loss), weight in zip(plain.items(), weights.values(), strict=True):
        assert loss > 0
        torch.testing.assert_close(weighted[name], weight * loss)


def test_identities_are_classified_beside_oim():
    layers = make_layers("MODEL.REID_HEAD.ID_LOSS_WEIGHT", 3.0)
    assert layers.id_loss.classifier.weight.shape == (5, 2)
    outputs = predictions([[0.0] * 4] * 4, [0.0] * 4, [[1.0, 0], [0, 1], [0.6, 0.8], [0.8, 0.6]])
    # The second is background, the last one has no identity.
    losses = layers.losses(outputs, [sampled([0, 1, 0, 0], [2, 3, 1, -1])])
    people = torch.tensor([[1.0, 0], [0.6, 0.8], [0.8, 0.6]])
    expected = 3 * layers.id_loss(people, torch.tensor([2, 1, -1]))
    torch.testing.assert_close(losses["loss_id"], expected)


def test_by_default_identities_are_not_classified():
    layers = make_layers()
    assert layers.id_loss is None
    outputs = predictions([[0.0] * 4], [0.0], [[1.0, 0.0]])
    assert "loss_id" not in layers.losses(outputs, [sampled([0], [2])])


def test_decoded_boxes_are_split_by_image():
    layers = make_layers()
    zero = [0.0] * 4
    outputs = predictions([zero, [10.0, 0, 0, 0], zero], [0.0] * 3, [[1.0, 0.0]] * 3)
    boxes = layers.predict_boxes(outputs, [sampled([0]), sampled([0, 0])])
    assert [b.tolist() for b in boxes] == [
        [[0.0, 0.0, 10.0, 20.0]],
        [[10.0, 0.0, 20.0, 20.0], [0.0, 0.0, 10.0, 20.0]],
    ]


def test_forward_shapes():
    layers = make_layers().eval()
    outputs = layers({"res4": torch.randn(3, 4), "res5": torch.randn(3, 6)})
    assert outputs.deltas.shape == (3, 4)
    assert outputs.person_logits.shape == (3,)
    assert outputs.embeddings.shape == (3, 2)
