# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Short trainings, whole or interrupted, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kdps.engine.trainer import PersonSearchTrainer
from kdps.utils.rng import seed_all


def train(cfg: Any, resume: bool = False, stop_after: int | None = None) -> PersonSearchTrainer:
    """Train until the end, or until the process would have died after some iterations."""
    # The first weights come from the seed; a resumed run must not depend on what it starts with.
    seed_all(77 if resume else 3)
    trainer = PersonSearchTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    if stop_after is not None:
        _die_after(trainer, stop_after)
        with pytest.raises(InterruptedError):
            trainer.train()
    else:
        trainer.train()
    return trainer


def _die_after(trainer: PersonSearchTrainer, iterations: int) -> None:
    run_step = trainer._trainer.run_step

    def step() -> None:
        if trainer.iter >= iterations:
            raise InterruptedError
        run_step()

    trainer._trainer.run_step = step


def weights(folder: Path, name: str = "model_final") -> dict[str, Any]:
    return torch.load(folder / f"{name}.pth", weights_only=True)


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    """Bit equality of nested containers of tensors and numbers."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}/{i}")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    else:
        assert a == b, where
