# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The training step and the detections of a public AlignPS, on given neck maps.

The numbers below were recorded by running the public heads (daodaofr/AlignPS 5d62dbc, of CUHK-SYSU
and of PRW) with stand-ins for what they take from mmcv; weights and maps are the kit's.
"""

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from parity_kit import published_weights
from published_checkpoints import as_published
from torch import nn

import kdps.modeling  # noqa: F401  (registers the model)
from kdps.checkpoint.convert import convert
from kdps.config import get_cfg

SIZE = (128, 192)
SIDES = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
PEOPLE = [
    (
        [[10, 5, 50, 110], [40, 20, 90, 120], [100, 30, 140, 125], [12, 8, 47, 101]]
        + [[150, 3, 191, 128]],
        [4, 7, -1, 1, 2],
    ),
    ([[60, 10, 100, 100], [5, 60, 25, 110]], [4, -1]),
]
# Losses; norms of the gradients with respect to the five maps; norms of table and queue after the
# step, of which PRW's have 483 and 500 rows.
DETECTION = {
    "loss_cls": 1.157862663269043,
    "loss_box_reg": 0.7303559184074402,
    "loss_centreness": 0.711418628692627,
}
COARSER = [0.09104634821414948, 0.03221942856907844, 0.00574830174446106, 0.0019591774325817823]
RECORDED = {
    "CUHK-SYSU": (
        {**DETECTION, "loss_oim": 7.027566432952881, "loss_triplet": 0.45755255222320557},
        [0.19991010427474976, *COARSER],
        (74.35904450136141, 70.71416457750179),
    ),
    "PRW": (
        {**DETECTION, "loss_oim": 5.302611827850342},
        [0.21619555354118347, *COARSER],
        (21.977260975154316, 22.371702475035356),
    ),
}
# Of each image: detections, the sum of their scores, their mean box, the sum of their embeddings.
DETECTIONS = [
    (64, 14.121315997, [70.878764868, 42.496623069, 118.229282677, 90.924767107], 0.340082444),
    (72, 15.310868219, [76.047534982, 43.393236584, 122.447001934, 89.760071701], 14.463640089),
]


class GivenMaps(nn.Module):
    """In the place of backbone and neck."""

    size_divisibility = 32
    padding_constraints: dict = {}

    def __init__(self, maps):
        super().__init__()
        self.maps = nn.ParameterList(maps)

    def forward(self, x):
        maps = list(self.maps)[: 5 if self.training else 1]
        return {f"p{level}": own for level, own in enumerate(maps, start=3)}


@pytest.fixture(scope="module", params=RECORDED)
def case(request, kit, parity_dir):
    """A model with the kit's weights and maps, and what is recorded of it."""
    num_pids, queue_size = {"CUHK-SYSU": (5532, 5000), "PRW": (483, 500)}[request.param]
    cfg = get_cfg()
    cfg.merge_from_file(f"configs/{request.param}/alignps_R_50.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.REID_HEAD.NUM_PIDS, cfg.MODEL.REID_HEAD.QUEUE_SIZE = num_pids, queue_size
    model = build_model(cfg)
    published = published_weights(parity_dir, kit, "alignps")
    # So that boxes are neither everywhere nor empty.
    published["bbox_head.conv_cls.bias"].fill_(-1.0)
    published["bbox_head.conv_reg.bias"].fill_(3.0)
    for name, rows in (
        ("labeled_matching_layer.lookup_table", num_pids),
        ("unlabeled_matching_layer.queue", queue_size),
    ):
        published[f"bbox_head.{name}"] = published[f"bbox_head.{name}"][:rows]
    own = as_published(model.state_dict(), "alignps")
    model.load_state_dict(convert({"state_dict": {**own, **published}}, "alignps").weights)
    maps = [kit.rng(f"map:{i}").standard_normal((2, 256, *hw)) for i, hw in enumerate(SIDES)]
    model.backbone = GivenMaps(torch.from_numpy(x.astype(np.float32)) for x in maps)
    return model, RECORDED[request.param]


def batch():
    records = []
    for boxes, pids in PEOPLE:
        instances = Instances(
            SIZE,
            gt_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32)),
            gt_classes=torch.zeros(len(pids), dtype=torch.int64),
            gt_pids=torch.tensor(pids),
        )
        records.append({"image": torch.zeros(3, *SIZE), "instances": instances})
    return records


def test_training_step(case):
    model, (losses, gradients, memory) = case
    with EventStorage():
        found = model.train()(batch())
    sum(found.values()).backward()
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(losses, rel=1e-5)
    norms = [own.grad.norm().item() for own in model.backbone.maps]
    assert norms == pytest.approx(gradients, rel=1e-4)
    own = model.oim.memory
    assert own.table.double().norm().item() == pytest.approx(memory[0], rel=1e-6)
    assert own.queue.double().norm().item() == pytest.approx(memory[1], rel=1e-6)
    assert own.pointer == 12


@torch.no_grad()
def test_detections(case):
    model, _ = case
    found = model.eval().inference(batch(), do_postprocess=False)
    for own, (count, scores, box, embeddings) in zip(found, DETECTIONS, strict=True):
        assert len(own) == count
        assert own.scores.sum().item() == pytest.approx(scores, rel=1e-5)
        assert own.pred_boxes.tensor.double().mean(dim=0).tolist() == pytest.approx(box, abs=1e-3)
        assert own.pred_embeddings.double().sum().item() == pytest.approx(embeddings, abs=1e-3)
