# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The function of a public AlignPS, against numbers recorded from its own code.

Recorded are the neck and the head on given feature maps. Its TOIM loss is compared in
``losses/test_triplet.py``.
"""

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from parity_assertions import assert_close, assert_probe
from parity_kit import published_weights
from published_checkpoints import as_published
from torch import nn
from torch.nn import functional as F

import kdps.modeling  # noqa: F401  (registers the model)
from kdps.checkpoint.convert import convert
from kdps.config import get_cfg
from kdps.layers.spatial_mean import subtract_spatial_mean

RECORDED_AS = "alignps"
SHAPES = {"c3": (1, 512, 16, 24), "c4": (1, 1024, 8, 12), "c5": (1, 2048, 4, 6)}


class GivenMaps(nn.Module):
    """In the place of the backbone, of which nothing is recorded."""

    def __init__(self, maps):
        super().__init__()
        self.maps = maps

    def forward(self, x):
        return self.maps


@pytest.fixture(scope="module")
def published(parity_dir, kit):
    return published_weights(parity_dir, kit, RECORDED_AS)


@pytest.fixture(scope="module")
def model(kit, published):
    cfg = get_cfg()
    cfg.merge_from_file("configs/CUHK-SYSU/alignps_R_50.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.REID_HEAD.NUM_PIDS, cfg.MODEL.REID_HEAD.QUEUE_SIZE = 5532, 5000
    model = build_model(cfg)
    backbone = as_published(model.state_dict(), "alignps")
    backbone = {name: tensor for name, tensor in backbone.items() if name.startswith("backbone.")}
    weights = convert({"state_dict": {**backbone, **published}}, "alignps").weights
    model.load_state_dict(weights)
    maps = {
        f"res{name[1]}": torch.from_numpy(
            np.maximum(kit.rng(f"feat:{name}").standard_normal(shape), 0).astype(np.float32)
        )
        for name, shape in SHAPES.items()
    }
    model.backbone.bottom_up = GivenMaps(maps)
    return model


@pytest.fixture(params=["eval", "train"])
def mode(request, model):
    model.train(request.param == "train")
    return request.param


@torch.no_grad()
def test_neck(mode, model, kit, recorded):
    neck = model.backbone
    maps = neck(None)
    given = neck.bottom_up.maps.values()
    laterals = [lateral(own) for lateral, own in zip(neck.laterals, given, strict=True)]
    for level, lateral in enumerate(laterals, start=3):
        assert_probe(kit, recorded, f"{mode}/lateral{level}", lateral)
    offsets = neck.outputs[0].offset(neck.join_laterals(laterals)[0])
    assert_probe(kit, recorded, f"{mode}/p3_offsets", offsets)
    names = [name for name in maps if name.startswith("p")]
    assert names == (["p3"] if mode == "eval" else ["p3", "p4", "p5", "p6", "p7"])
    for name in names:
        assert_probe(kit, recorded, f"{mode}/neck{name[1:]}", maps[name])


@torch.no_grad()
def test_head(mode, model, kit, published, recorded):
    maps = [own for name, own in model.backbone(None).items() if name.startswith("p")]
    maps[0] = subtract_spatial_mean(maps[0])
    logits, *_ = model.head(maps)
    for i, own in enumerate(maps):
        key = f"{mode}/%s{i + 3}"
        assert_probe(kit, recorded, key % "cls", logits[i])
        assert_probe(kit, recorded, key % "reid", own)
        # There boxes are regressed on all maps, each with a scale of its own.
        model.head.box_scale.copy_(published[f"bbox_head.scales.{i}.scale"])
        _, deltas, centre_logits = model.head([own])
        stride = 8 if mode == "eval" else 1
        assert_probe(kit, recorded, key % "bbox", F.relu(deltas) * stride)
        assert_probe(kit, recorded, key % "centerness", centre_logits)
    model.head.box_scale.copy_(published["bbox_head.scales.0.scale"])
    rows = model._embeddings({"p3": maps[0]})[0, ::24]
    assert_close(rows, recorded[f"{mode}/reid3_normalised_rows0_383_step24"], atol=2e-5)


def test_memory(model, published):
    memory = model.oim.memory
    assert torch.equal(memory.table, published["bbox_head.labeled_matching_layer.lookup_table"])
    assert torch.equal(memory.queue, published["bbox_head.unlabeled_matching_layer.queue"])
    assert memory.pointer == 0
