# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Trainings with a teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from scene_teachers import scene_node, write_teacher
from short_training import assert_equal, train, weights
from toy_distillation import distilling

from kdps.checkpoint.checkpointer import PersonSearchCheckpointer
from kdps.config.validation import check_cfg
from kdps.distillation.distiller import Distiller
from kdps.distillation.network_teacher import NetworkTeacher
from kdps.engine.distillation import DistillationHook, student_of
from kdps.engine.predictor import load_for_inference
from kdps.engine.trainer import PersonSearchTrainer
from kdps.errors import KdpsError
from kdps.train_net import evaluate
from kdps.utils.testing_set import tiny_training_cfg

MEAN = ("DISTILLATION.mean.MOMENTUM", 0.5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("teacher")
    return write_teacher(folder, cfg=tiny_training_cfg(folder))


def cfg_of(folder: Path, *opts: Any, distil: tuple[Any, ...] = MEAN) -> CfgNode:
    return distilling(*distil, make=lambda: tiny_training_cfg(folder, *opts))


def from_scene(files: dict[str, str]) -> tuple[Any, ...]:
    return ("DISTILLATION.mean", scene_node(files, OWN_SIZE=False))


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(cfg_of(folder))
    return folder


def test_the_student_is_saved_as_a_plain_one_with_the_adapters_beside(uninterrupted: Path) -> None:
    final = weights(uninterrupted)
    assert set(final["adapters"]) == {"ToyLoss.scale"}
    assert final["adapters"]["ToyLoss.scale"] != 1.0
    plain = tiny_training_cfg(uninterrupted)
    plain.DISTILLATION.ENABLED = False
    model = build_model(plain)
    assert final["model"].keys() == model.state_dict().keys()
    PersonSearchCheckpointer(model).load_complete(str(uninterrupted / "model_final.pth"))
    assert weights(uninterrupted, "model_best").keys() == {"model", "iteration"}
    assert weights(uninterrupted, "model_best")["model"].keys() == final["model"].keys()


def test_losses_and_weight_are_recorded(uninterrupted: Path) -> None:
    found = [r for r in records(uninterrupted) if "loss_kd_toy_map" in r]
    assert found
    assert all(r["kd/weight"] == 1.0 for r in found)
    # Momentum and batch statistics keep the mean apart from the student.
    assert all(r["loss_kd_toy_map"] > 0 for r in found)


@pytest.mark.parametrize("stop_after", [4, 6])
def test_a_resumed_run_equals_an_uninterrupted_one(
    uninterrupted: Path, tmp_path: Path, stop_after: int
) -> None:
    train(cfg_of(tmp_path), stop_after=stop_after)
    train(cfg_of(tmp_path), resume=True)
    assert_equal(weights(tmp_path), weights(uninterrupted))


def test_a_resumed_run_needs_the_adapters(tmp_path: Path) -> None:
    train(tiny_training_cfg(tmp_path), stop_after=4)
    with pytest.raises(KdpsError, match=r"holds no state of a training \(adapters\)"):
        train(cfg_of(tmp_path), resume=True)


def test_a_weight_of_zero_trains_the_student_as_it_is(
    files: dict[str, str], tmp_path: Path
) -> None:
    train(tiny_training_cfg(tmp_path / "alone"))
    distil = (*from_scene(files), "DISTILLATION.ToyLoss.WEIGHT", 0.0)
    train(cfg_of(tmp_path / "distilled", distil=distil))
    assert_equal(weights(tmp_path / "distilled")["model"], weights(tmp_path / "alone")["model"])
    distil = (*from_scene(files), "DISTILLATION.ToyLoss.WEIGHT", 1.0)
    train(cfg_of(tmp_path / "more", distil=distil))
    key = "backbone.stem.conv1.weight"
    assert not torch.equal(
        weights(tmp_path / "more")["model"][key], weights(tmp_path / "alone")["model"][key]
    )


def seen_by_teachers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fills with the number of images of each call of a teacher."""
    calls: list[int] = []
    call = NetworkTeacher.__call__

    def count(self: NetworkTeacher, batch: list[dict[str, Any]]) -> Any:
        calls.append(len(batch))
        return call(self, batch)

    monkeypatch.setattr(NetworkTeacher, "__call__", count)
    return calls


def test_teachers_see_training_steps_and_nothing_else(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = seen_by_teachers(monkeypatch)
    bn = ("TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2)
    trainer = train(cfg_of(tmp_path, *bn, distil=from_scene(files)))
    assert calls == [4] * 8
    # After the training nothing watches the model any more.
    assert not trainer.model._forward_pre_hooks
    hook = next(h for h in trainer._hooks if isinstance(h, DistillationHook))
    own = write_model(files)
    for name, value in hook._teachers["mean"].model.state_dict().items():
        assert torch.equal(value, own[name]), name


def write_model(files: dict[str, str]) -> dict[str, torch.Tensor]:
    return torch.load(files["WEIGHTS"], weights_only=True)["model"]


def test_distillation_warms_up_and_stops(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = seen_by_teachers(monkeypatch)
    distil = (
        *from_scene(files),
        *("DISTILLATION.WARMUP_ITERS", 2, "DISTILLATION.STOP_ITER", 5),
    )
    train(cfg_of(tmp_path, "LOG.PERIOD", 1, distil=distil))
    factors = [r["kd/weight"] for r in records(tmp_path) if "kd/weight" in r]
    assert factors[:8] == [0.5, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert calls == [4] * 5


def test_its_iterations_are_scaled_with_those_of_the_solver(
    files: dict[str, str], tmp_path: Path
) -> None:
    distil = (
        *from_scene(files),
        *("DISTILLATION.WARMUP_ITERS", 2, "DISTILLATION.STOP_ITER", 6),
    )
    # Made for two processes: one has half the batch, and twice the iterations.
    scaled = ("SOLVER.REFERENCE_WORLD_SIZE", 2, "LOG.PERIOD", 1, "TEST.EVAL_PERIOD", 0)
    cfg = cfg_of(tmp_path, *scaled, distil=distil)
    cfg.DATASETS.TEST = ()
    train(cfg)
    factors = [r["kd/weight"] for r in records(tmp_path) if "kd/weight" in r]
    assert factors == [0.25, 0.5, 0.75] + [1.0] * 9 + [0.0] * 4


def test_the_optimizer_has_student_and_adapters_only(files: dict[str, str], tmp_path: Path) -> None:
    trainer = PersonSearchTrainer(cfg_of(tmp_path, distil=from_scene(files)))
    trained = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    student = student_of(trainer.model)
    assert isinstance(trainer.model, Distiller)
    assert len(trained) == len(list(student.parameters())) + 1
    assert student_of(student) is student


GONE = {"CONFIG_FILE": "no.yaml", "WEIGHTS": "no.pth"}


def test_the_trained_student_is_evaluated_and_used_without_its_teacher(
    uninterrupted: Path, tmp_path: Path
) -> None:
    cfg = cfg_of(tmp_path, distil=("DISTILLATION.mean", scene_node(GONE)))
    cfg.MODEL.WEIGHTS, cfg.MODEL.FROM_SCRATCH = str(uninterrupted / "model_final.pth"), False
    check_cfg(cfg, eval_only=True)
    assert "mAP" in evaluate(cfg)["person_search"]
    assert type(load_for_inference(cfg)).__name__ == "PersonSearchRCNN"


def test_a_missing_teacher_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(KdpsError, match=r"DISTILLATION.mean.CONFIG_FILE: no such file: no.yaml"):
        PersonSearchTrainer(cfg_of(tmp_path, distil=("DISTILLATION.mean", scene_node(GONE))))
    assert not list(tmp_path.iterdir())
