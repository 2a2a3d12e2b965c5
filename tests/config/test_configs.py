# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Every config file that the repository ships."""

from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model

import kdps.data  # noqa: F401  (registers the sets)
import kdps.modeling  # noqa: F401  (registers the models)
from kdps.config import get_cfg

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path
    for folder in ("configs", "projects")
    for path in (ROOT / folder).rglob("*.yaml")
    if not path.name.startswith("Base-")
)
names = pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT)))


def load(path):
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    return cfg


def test_there_are_configs():
    assert len(CONFIGS) >= 4


@names
def test_it_builds(path):
    cfg = load(path)
    cfg.MODEL.DEVICE = "cpu"
    # What the trainer takes from the training set.
    cfg.MODEL.REID_HEAD.NUM_PIDS, cfg.MODEL.REID_HEAD.QUEUE_SIZE = 3, 2
    model = build_model(cfg)
    assert sum(p.requires_grad for p in model.parameters()) > 0


@names
def test_its_sets_are_registered(path):
    cfg = load(path)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        assert name in DatasetCatalog.list()


@names
def test_its_schedule_ends_after_the_last_decay(path):
    solver = load(path).SOLVER
    assert solver.WARMUP_ITERS < solver.MAX_ITER
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        assert min(solver.STEPS) > solver.WARMUP_ITERS
        assert max(solver.STEPS) < solver.MAX_ITER


@pytest.mark.parametrize(
    ("name", "images", "epochs"), [("CUHK-SYSU", 11206, 20), ("PRW", 5704, 18)]
)
def test_the_published_recipe_of_seqnet(name, images, epochs):
    cfg = load(ROOT / "configs" / name / "seqnet_R_50_C4.yaml")
    per_epoch = images // cfg.SOLVER.IMS_PER_BATCH
    assert cfg.SOLVER.IMS_PER_BATCH == 5
    assert per_epoch * epochs == cfg.SOLVER.MAX_ITER
    assert (per_epoch * 16,) == cfg.SOLVER.STEPS
    assert per_epoch - 1 == cfg.SOLVER.WARMUP_ITERS
