# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Distillation in several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cpu_ranks import launch_two
from detectron2.utils import comm
from scene_teachers import scene_node, write_teacher
from toy_distillation import distilling

from kdps.engine.distillation import DistillationHook
from kdps.engine.trainer import PersonSearchTrainer
from kdps.utils.rng import seed_all
from kdps.utils.testing_set import register_tiny_sets, tiny_training_cfg


def _train(folder: Path) -> None:
    register_tiny_sets(folder / "set")
    files = {"CONFIG_FILE": str(folder / "teacher.yaml"), "WEIGHTS": str(folder / "teacher.pth")}
    cfg = distilling(
        *("DISTILLATION.mean", scene_node(files, OWN_SIZE=False)),
        *("DISTILLATION.LOSSES", ("ToyLoss", "ToyIdentityLoss")),
        *("DISTILLATION.ToyLoss.STAGES", ("reid",), "DISTILLATION.STOP_ITER", 6),
        make=lambda: tiny_training_cfg(folder / "output"),
    )
    # Different beginnings: the ranks must agree on the weights of rank 0.
    seed_all(comm.get_rank())
    trainer = PersonSearchTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    torch.save(trainer.model.module.state_dict(), folder / f"{comm.get_rank()}.pt")


@pytest.mark.slow
def test_two_ranks_agree_on_student_adapters_and_tables(tmp_path: Path) -> None:
    # The last two of eight steps have no teacher, and the adapters no other gradient than zero.
    register_tiny_sets(tmp_path / "set")
    write_teacher(tmp_path, cfg=tiny_training_cfg(tmp_path))
    first, second = launch_two(_train, tmp_path)
    assert first["losses.ToyLoss.scale"] != 1.0
    assert first["student.roi_heads.reid_predictor.oim.memory.table"].any()
    for key in first:
        assert torch.equal(first[key], second[key]), key
    final = torch.load(tmp_path / "output" / "model_final.pth", weights_only=True)
    assert torch.equal(final["adapters"]["ToyLoss.scale"], first["losses.ToyLoss.scale"])
    assert all(torch.equal(v, first[f"student.{key}"]) for key, v in final["model"].items())


def _follow(folder: Path) -> None:
    register_tiny_sets(folder / "set")
    cfg = distilling(make=lambda: tiny_training_cfg(folder / "output"))
    trainer = PersonSearchTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    (hook,) = (own for own in trainer._hooks if isinstance(own, DistillationHook))
    torch.save(hook.state_dict()["mean"], folder / f"{comm.get_rank()}.pt")


@pytest.mark.slow
def test_two_ranks_follow_the_same_mean(tmp_path: Path) -> None:
    first, second = launch_two(_follow, tmp_path)
    assert any(key.endswith("running_mean") for key in first)
    for key in first:
        assert torch.equal(first[key], second[key]), key
