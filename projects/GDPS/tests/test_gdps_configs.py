# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The recipes of GDPS: student and teacher of each fit, and train a step."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from narrow_configs import load, narrow
from scene_teachers import write_teacher

import kdps.data  # noqa: F401  (registers the sets)
import kdps.modeling  # noqa: F401  (registers the models)
from kdps.distillation import build_distiller, build_teachers
from kdps.distillation.settings import check_distillation
from kdps.utils.testing import make_training_batch

PROJECT = Path(__file__).resolve().parents[1]
ROOT = PROJECT.parents[1]
CONFIGS = sorted((PROJECT / "configs").glob("*/gdps_*.yaml"))
names = pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.stem}")


def test_each_data_set_has_the_same_recipes():
    recipes = {}
    for path in CONFIGS:
        recipes.setdefault(path.parent.name, []).append(path.stem)
    assert recipes["CUHK-SYSU"] == recipes["PRW"]
    methods = {name.split("_")[1] for name in recipes["PRW"]}
    assert methods == {"oim", "nae", "seqnet", "coat", "alignps", "roi"}


@names
def test_the_teacher_is_what_its_config_trains(path):
    cfg = load(path)
    scene = cfg.DISTILLATION.scene
    teacher = load(ROOT / scene.CONFIG_FILE)
    assert teacher.DATASETS.TRAIN == cfg.DATASETS.TRAIN
    folder = Path(scene.WEIGHTS).parent
    if scene.get("OPTS"):
        told = (PROJECT / "README.md").read_text()
        trained = str(folder).replace("prw_", "cuhk_sysu_")
        assert f"OUTPUT_DIR ./{trained}\n" in told
        assert all(option in told for option in scene.OPTS)
    else:
        assert folder == Path(teacher.OUTPUT_DIR)
    assert not teacher.DISTILLATION.ENABLED
    images = {"CUHK-SYSU": 11206, "PRW": 5704, "synth": 2600, "PETS09": 80}[path.parent.name]
    # The first epoch.
    assert abs(cfg.DISTILLATION.WARMUP_ITERS - images / cfg.SOLVER.IMS_PER_BATCH) <= 1


@names
def test_student_and_teacher_fit(path, tmp_path):
    cfg = narrow(load(path))
    scene = cfg.DISTILLATION.scene
    teacher = load(ROOT / scene.CONFIG_FILE)
    teacher.merge_from_list(list(scene.get("OPTS", ())))
    teacher = narrow(teacher)
    torch.manual_seed(0)
    scene.update(write_teacher(tmp_path, cfg=teacher))
    check_distillation(cfg)
    student = build_model(cfg)
    teachers = build_teachers(cfg, student)
    distiller = build_distiller(cfg, student, teachers).train()
    batch = make_training_batch([[0, 1, 2], [3, -1]], 128, 192)
    if scene.get("OWN_SIZE", True):
        # A teacher's own size is that of the published recipe.
        teachers["scene"].sizes = (128, 192)
    with EventStorage():
        losses = distiller(batch, teachers={"scene": teachers["scene"](batch)})
    assert {"loss_kd_focal", "loss_kd_gram", "loss_kd_identity"} <= losses.keys()
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
