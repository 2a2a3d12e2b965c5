# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Training steps in full and in mixed precision."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, SimpleTrainer
from torch import nn

# Values of SOLVER.AMP.PRECISION and of TEST.PRECISION.
TRAINING_PRECISIONS = ("float16", "bfloat16")
TEST_PRECISIONS = ("float32", *TRAINING_PRECISIONS)


def scales_loss(cfg: CfgNode) -> bool:
    """Whether training is in float16, in which gradients vanish unless the loss is scaled."""
    return cfg.SOLVER.AMP.ENABLED and cfg.SOLVER.AMP.PRECISION == "float16"


class BFloat16Trainer(SimpleTrainer):
    """Detectron2's trainer with a forward pass in mixed precision, on any device.

    bfloat16 has the range of float32, so there is no loss to be scaled; Detectron2's ``AMPTrainer``
    is for float16 and takes GPUs only.
    """

    def run_step(self) -> None:
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        self.optimizer.zero_grad()
        device = next(self.model.parameters()).device
        with torch.autocast(device.type, torch.bfloat16):
            losses = self.model(data)
            total = sum(losses.values())
        total.backward()
        self.after_backward()
        self._write_metrics(losses, data_time)
        self.optimizer.step()


def build_step_trainer(
    cfg: CfgNode, model: nn.Module, data_loader: Iterable, optimizer: torch.optim.Optimizer
) -> SimpleTrainer:
    """What runs a step, in the precision of ``SOLVER.AMP``.

    Args:
        cfg: the config.
        model: returns losses by name in training.
        data_loader: its batches.
        optimizer: of its parameters.
    """
    if scales_loss(cfg):
        scaler = torch.amp.GradScaler("cuda")
        return AMPTrainer(model, data_loader, optimizer, grad_scaler=scaler)
    kind = BFloat16Trainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
    return kind(model, data_loader, optimizer)
