# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Optimizers beside Detectron2's SGD, and clipping the gradient of the whole model."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer, get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

from kdps.engine.mixed_precision import scales_loss

# SOLVER.CLIP_GRADIENTS.CLIP_TYPE of this kind, named as in other Detectron2 projects.
FULL_MODEL = "full_model"
# Values of SOLVER.OPTIMIZER; None is Detectron2's own.
OPTIMIZERS = {"SGD": None, "Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}


def build_clipped_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """``SOLVER.OPTIMIZER``; CLIP_TYPE "full_model" clips the norm over all parameters together.

    Detectron2's own types clip each parameter by itself, which changes the direction of the step.
    """
    clipping = cfg.SOLVER.CLIP_GRADIENTS
    if not (clipping.ENABLED and clipping.CLIP_TYPE == FULL_MODEL):
        return _build_optimizer(cfg, model)
    plain = cfg.clone()
    plain.defrost()
    plain.SOLVER.CLIP_GRADIENTS.ENABLED = False
    optimizer = _build_optimizer(plain, model)

    def clip(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, clipping.CLIP_VALUE, clipping.NORM_TYPE)

    # Runs inside step(), hence on unscaled gradients with mixed precision as well.
    optimizer.register_step_pre_hook(clip)
    return optimizer


def _build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """With Detectron2's own kinds of clipping, and its groups of parameters."""
    solver = cfg.SOLVER
    optimizer_class = OPTIMIZERS[solver.OPTIMIZER]
    if optimizer_class is None:
        return build_optimizer(cfg, model)
    parameters = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    # One kernel for all parameters. It would unscale gradients itself, behind what clips them.
    optimizer = optimizer_class(
        parameters,
        lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        fused=None if scales_loss(cfg) else True,
    )
    return maybe_add_gradient_clipping(cfg, optimizer)
