# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Every bundled loss, between networks of each kind, in trainings from end to end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode
from scene_teachers import scene_node, write_teacher
from short_training import train, weights

from kdps.distillation import DISTILL_LOSS_REGISTRY
from kdps.utils.testing import TINY_METHODS
from kdps.utils.testing_set import tiny_training_cfg

LARGER = ("MODEL.TINY_RESNET.CHANNELS", (8, 12, 32), "MODEL.REID_HEAD.EMBEDDING_DIM", 24)
WIDER = ("MODEL.FPN.OUT_CHANNELS", 64, "MODEL.REID_HEAD.EMBEDDING_DIM", 64)
# Student and teacher with what they change, and the maps that are compared.
PAIRS: dict[str, tuple[str, str, tuple[Any, ...], str, str]] = {
    "seqnet from seqnet": ("seqnet", "seqnet", LARGER, "res4", "res4"),
    "nae from coat": ("nae", "coat", (), "res4", "res4"),
    "nae_plus from nae": ("nae_plus", "nae", (), "res4", "res4"),
    "oim from seqnext": ("oim", "seqnext", LARGER, "res4", "res4"),
    "coat from seqnet": ("coat", "seqnet", (), "res4", "res4"),
    "alignps from alignps": ("alignps", "alignps", WIDER, "p3", "p3"),
    "alignps from seqnet": ("alignps", "seqnet", LARGER, "p3", "res4"),
    "roi_alignps from roi_alignps": ("roi_alignps", "roi_alignps", WIDER, "p3", "p3"),
    "seqnet from alignps": ("seqnet", "alignps", WIDER, "res4", "p3"),
}
NAMES = {
    *("loss_kd_feature", "loss_kd_focal", "loss_kd_attention", "loss_kd_global"),
    *("loss_kd_pearson", "loss_kd_gram", "loss_kd_softmax_relation", "loss_kd_distance"),
    *(
        "loss_kd_angle",
        "loss_kd_identity",
        "loss_kd_table",
        "loss_kd_triplet",
        "loss_kd_score",
        "loss_kd_box",
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_all_losses_train_together(pair: str, tmp_path: Path) -> None:
    student, teacher, changed, own_map, their_map = PAIRS[pair]
    cfg = tiny_training_cfg(tmp_path / "student", *TINY_METHODS[student], "SOLVER.MAX_ITER", 3)
    theirs = tiny_training_cfg(tmp_path, *TINY_METHODS[teacher], *changed)
    cfg.DATASETS.TEST, cfg.TEST.EVAL_PERIOD, cfg.LOG.PERIOD = (), 0, 1
    cfg.SOLVER.STEPS = ()
    # Losses of random networks are large.
    cfg.SOLVER.BASE_LR = 1e-5
    node = cfg.DISTILLATION
    node.ENABLED, node.TEACHERS = True, ("scene",)
    node.LOSSES = tuple(name for name, _ in DISTILL_LOSS_REGISTRY if not name.startswith("Toy"))
    node.scene = scene_node(write_teacher(tmp_path, cfg=theirs), OWN_SIZE=student == "nae")
    for name in node.LOSSES:
        node[name] = CfgNode(new_allowed=True)
        if "Feature" in name:
            node[name].FEATURES, node[name].TEACHER_FEATURES = (own_map,), (their_map,)
    if student == "alignps" and teacher != "alignps":
        node.DetectionResponse.STAGES = node.BoxResponse.STAGES = ("reid",)
    train(cfg)
    records = [json.loads(line) for line in (tmp_path / "student" / "metrics.json").open()]
    found = [record for record in records if "total_loss" in record]
    assert len(found) == 3
    for record in found:
        assert {name for name in record if "_kd_" in name} == NAMES
        assert all(math.isfinite(record[name]) for name in NAMES)
    # From the second step on the student's lookup table knows somebody.
    assert all(found[-1][name] > 0 for name in NAMES)
    assert "adapters" in weights(tmp_path / "student")
