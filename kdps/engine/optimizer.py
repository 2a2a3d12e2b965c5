# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Clipping the gradient of the whole model, which Detectron2 leaves to its projects."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer
from torch import nn

# SOLVER.CLIP_GRADIENTS.CLIP_TYPE of this kind, named as in other Detectron2 projects.
FULL_MODEL = "full_model"


def build_clipped_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Detectron2's SGD; CLIP_TYPE "full_model" clips the norm over all parameters together.

    Detectron2's own types clip each parameter by itself, which changes the direction of the step.
    """
    clipping = cfg.SOLVER.CLIP_GRADIENTS
    if not (clipping.ENABLED and clipping.CLIP_TYPE == FULL_MODEL):
        return build_optimizer(cfg, model)
    plain = cfg.clone()
    plain.defrost()
    plain.SOLVER.CLIP_GRADIENTS.ENABLED = False
    optimizer = build_optimizer(plain, model)

    def clip(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, clipping.CLIP_VALUE, clipping.NORM_TYPE)

    # Runs inside step(), hence on unscaled gradients with mixed precision as well.
    optimizer.register_step_pre_hook(clip)
    return optimizer
