# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from cpu_ranks import ONE_MACHINE, launch_two
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdps.engine.distributed import launch, share_buffers, wrap_for_training
from kdps.engine.trainer import PersonSearchTrainer
from kdps.errors import KdpsError
from kdps.utils.rng import seed_all
from kdps.utils.testing_set import register_tiny_sets, tiny_training_cfg


def test_one_process_stays_this_one() -> None:
    pids: list[int] = []
    launch(lambda: pids.append(os.getpid()), num_processes=1, args=(), **ONE_MACHINE)
    assert pids == [os.getpid()]


def test_torchrun_with_too_few_gpus_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(KdpsError, match="--nproc-per-node: 4 processes for 2 GPUs"):
        launch(os.getpid, num_processes=1, args=(), **ONE_MACHINE)


def test_one_process_is_not_wrapped() -> None:
    model = nn.Linear(1, 1)
    assert wrap_for_training(model) is model
    share_buffers(model)


def _gradients_and_buffers(folder: Path) -> None:
    rank = comm.get_rank()
    torch.manual_seed(rank)
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
    wrapped = wrap_for_training(model)
    assert isinstance(wrapped, DistributedDataParallel)
    start = model[0].weight.detach().clone()
    wrapped(torch.rand(4, 2)).square().sum().backward()
    before = model[1].running_mean.clone()
    share_buffers(wrapped)
    torch.save(
        {
            "weight": start,
            "grad": model[0].weight.grad,
            "before": before,
            "after": model[1].running_mean,
            "start_method": mp.get_start_method(),
            "threads": torch.get_num_threads(),
        },
        folder / f"{rank}.pt",
    )


@pytest.mark.slow
def test_cpu_ranks_share_weights_gradients_and_buffers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    first, second = launch_two(_gradients_and_buffers, tmp_path)
    assert torch.equal(first["weight"], second["weight"])
    assert torch.equal(first["grad"], second["grad"])
    assert not torch.equal(first["before"], second["before"])
    assert torch.equal(first["after"], first["before"])
    assert torch.equal(second["after"], first["before"])
    assert first["start_method"] == mp.get_start_method()
    assert first["threads"] <= max(1, (os.cpu_count() or 1) // 2)


def _train(folder: Path) -> None:
    register_tiny_sets(folder / "set")
    # Different beginnings: the ranks must agree on the weights of rank 0.
    seed_all(comm.get_rank())
    trainer = PersonSearchTrainer(tiny_training_cfg(folder / "output"))
    trainer.resume_or_load(resume=True)
    trainer.train()
    torch.save(trainer.model.module.state_dict(), folder / f"{comm.get_rank()}.pt")


class _InterruptedError(Exception):
    pass


class _Interrupt(HookBase):
    def after_step(self) -> None:
        if self.trainer.iter == 5:
            raise _InterruptedError


def _train_in_two_parts(folder: Path) -> None:
    register_tiny_sets(folder / "set")
    seed_all(comm.get_rank())
    trainer = PersonSearchTrainer(tiny_training_cfg(folder / "output"))
    trainer.register_hooks([_Interrupt()])
    trainer.resume_or_load(resume=False)
    with contextlib.suppress(_InterruptedError):
        trainer.train()
    comm.synchronize()
    assert (folder / "output" / "last_checkpoint").read_text() == "model_0000003.pth"
    _train(folder)


@pytest.mark.slow
def test_two_ranks_train_one_model_with_one_memory(tmp_path: Path) -> None:
    register_tiny_sets(tmp_path / "set")
    first, second = launch_two(_train, tmp_path)
    tables = [key for key in first if key.endswith((".table", ".queue", ".pointer"))]
    assert len(tables) == 3
    assert all(first[key].any() for key in tables)
    for key in first:
        # The last evaluation has shared the running statistics as well.
        assert torch.equal(first[key], second[key]), key
    final = torch.load(tmp_path / "output" / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(final[key], first[key]) for key in final)


@pytest.mark.slow
def test_two_ranks_resume_exactly(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    for name in ("whole", "parts"):
        register_tiny_sets(tmp_path / name / "set")
    whole = launch_two(_train, tmp_path / "whole")
    parts = launch_two(_train_in_two_parts, tmp_path / "parts")
    for uninterrupted, resumed in zip(whole, parts, strict=True):
        assert uninterrupted.keys() == resumed.keys()
        for key, value in uninterrupted.items():
            assert torch.equal(value, resumed[key]), key
