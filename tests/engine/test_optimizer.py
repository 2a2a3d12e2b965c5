# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch
from torch import nn

from kdps.config import get_cfg
from kdps.engine.optimizer import build_clipped_optimizer


def step_of(clip_type: str | None, scale: float = 1.0) -> torch.Tensor:
    """How far one step moves two parameters with gradients (3, 0) and (0, 4), each of 1 x 2.

    ``scale``: that of a gradient scaler, as in mixed precision.
    """
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR = 1.0
    cfg.SOLVER.MOMENTUM = 0.0
    cfg.SOLVER.WEIGHT_DECAY = 0.0
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = clip_type is not None
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip_type or "norm"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 1.0
    cfg.freeze()
    model = nn.ParameterList([nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))])
    optimizer = build_clipped_optimizer(cfg, model)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale != 1.0)
    loss = 3.0 * model[0][0] + 4.0 * model[1][1]
    scaler.scale(loss).backward()
    assert model[1].grad[1] == 4.0 * scale
    scaler.step(optimizer)
    return -torch.cat([p.detach() for p in model])


@pytest.mark.parametrize(
    ("clip_type", "expected"),
    [
        (None, [3.0, 0.0, 0.0, 4.0]),
        # The norm over all parameters is 5: the direction stays, the length becomes 1.
        ("full_model", [0.6, 0.0, 0.0, 0.8]),
        # Detectron2's: each parameter by itself.
        ("norm", [1.0, 0.0, 0.0, 1.0]),
    ],
)
def test_clipping(clip_type: str | None, expected: list[float]) -> None:
    torch.testing.assert_close(step_of(clip_type), torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_clipping_sees_the_gradients_without_the_scale_of_mixed_precision() -> None:
    expected = torch.tensor([0.6, 0.0, 0.0, 0.8])
    torch.testing.assert_close(step_of("full_model", scale=1024.0), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "decay", "expected"),
    [
        # The first step of Adam is the learning rate in the direction of the gradient's signs.
        ("Adam", 0.0, [-0.1, 0.1]),
        # AdamW takes its decay from the parameter itself: 0.1 * 0.5 * 2 of the first one.
        ("AdamW", 0.5, [-0.2, 0.1]),
    ],
)
def test_other_optimizers(name: str, decay: float, expected: list[float]) -> None:
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZER = name
    cfg.SOLVER.BASE_LR = 0.1
    cfg.SOLVER.WEIGHT_DECAY = decay
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    start = torch.tensor([2.0, 0.0])
    model = nn.ParameterList([nn.Parameter(start.clone())])
    optimizer = build_clipped_optimizer(cfg, model)
    (3.0 * model[0][0] - 400.0 * model[0][1]).backward()
    optimizer.step()
    assert model[0].grad.norm() == pytest.approx(1.0, rel=1e-4)
    torch.testing.assert_close(model[0].detach() - start, torch.tensor(expected))


def test_other_optimizers_have_the_groups_of_the_config() -> None:
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZER = "AdamW"
    cfg.SOLVER.WEIGHT_DECAY_BIAS = 0.0
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    optimizer = build_clipped_optimizer(cfg, nn.Linear(2, 2))
    assert isinstance(optimizer, torch.optim.AdamW)
    groups = {group["weight_decay"]: len(group["params"]) for group in optimizer.param_groups}
    assert groups == {cfg.SOLVER.WEIGHT_DECAY: 1, 0.0: 1}


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@pytest.mark.parametrize(
    ("amp", "precision", "fused"),
    [(False, "float16", True), (True, "bfloat16", True), (True, "float16", None)],
)
def test_gradients_are_clipped_before_a_kernel_could_unscale_them(
    name: str, amp: bool, precision: str, fused: bool | None
) -> None:
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZER = name
    cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.PRECISION = amp, precision
    optimizer = build_clipped_optimizer(cfg, nn.Linear(2, 2))
    assert optimizer.defaults["fused"] is fused
    assert {group["fused"] for group in optimizer.param_groups} == {fused}
