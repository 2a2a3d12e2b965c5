# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The recipes of DKD: student and teacher of each fit, and train a step."""

from pathlib import Path

import pytest
from crop_networks import crop_batch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from narrow_configs import load, narrow
from scene_teachers import write_teacher

import kdps.data  # noqa: F401  (registers the sets)
import kdps.modeling  # noqa: F401  (registers the models)
from kdps.distillation import build_distiller, build_teachers
from kdps.distillation.settings import check_distillation

PROJECT = Path(__file__).resolve().parents[1]
ROOT = PROJECT.parents[1]
STUDENTS = sorted((PROJECT / "configs").glob("*/dkd_*.yaml"))
names = pytest.mark.parametrize("path", STUDENTS, ids=lambda p: f"{p.parent.name}/{p.stem}")


def test_each_data_set_has_the_same_recipes():
    recipes: dict[str, set[str]] = {}
    for path in (PROJECT / "configs").glob("*/*.yaml"):
        recipes.setdefault(path.parent.name, set()).add(path.stem)
    assert recipes["CUHK-SYSU"] == recipes["PRW"]
    assert {"dkd_R_50_C4", "dkd_nae_R_50_C4", "crop_reid_R_50"} <= recipes["PRW"]


@names
def test_the_teacher_is_what_its_config_trains(path):
    cfg = load(path)
    crop = cfg.DISTILLATION.crop
    teacher = load(ROOT / crop.CONFIG_FILE)
    assert teacher.DATASETS.TRAIN == cfg.DATASETS.TRAIN
    assert str(Path(crop.WEIGHTS).parent) == str(Path(teacher.OUTPUT_DIR))
    assert teacher.MODEL.META_ARCHITECTURE == "CropReID"
    # Windows of teacher and student are of the same range.
    assert teacher.INPUT.PERSON_CROPS == cfg.INPUT.PERSON_CROPS


@names
def test_student_and_teachers_fit(path, tmp_path):
    cfg = narrow(load(path))
    for name in cfg.DISTILLATION.TEACHERS:
        node, folder = cfg.DISTILLATION[name], tmp_path / name
        folder.mkdir()
        node.update(write_teacher(folder, cfg=narrow(load(ROOT / node.CONFIG_FILE))))
    check_distillation(cfg)
    student = build_model(cfg)
    teachers = build_teachers(cfg, student)
    distiller = build_distiller(cfg, student, teachers).train()
    batch = crop_batch([[0, 1, 2], [3, -1]], (False, True))
    with EventStorage():
        losses = distiller(batch, teachers={name: own(batch) for name, own in teachers.items()})
    assert {"loss_kd_identity", "loss_kd_gram", "loss_kd_triplet"} <= losses.keys()
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
