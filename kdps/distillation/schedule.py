# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How much distillation counts in the course of a training."""

from __future__ import annotations

import math

# Values of DISTILLATION.SCHEDULE: the factor after warm-up, at a share of the way to the end.
SCHEDULES = {
    "constant": lambda share: 1.0,
    "linear": lambda share: 1.0 - share,
    "cosine": lambda share: 0.5 * (1.0 + math.cos(math.pi * share)),
}


def weight_factor(
    iteration: int, max_iter: int, *, warmup: int = 0, stop: int = -1, schedule: str = "constant"
) -> float:
    """Factor on the weights of all distillation losses in one iteration.

    Args:
        iteration: counts from 0.
        max_iter: iterations of the training.
        warmup: the factor rises linearly over so many iterations, from 1 / warmup to 1.
        stop: first iteration without distillation; -1 distils to the end.
        schedule: one of :data:`SCHEDULES`, from the end of the warm-up to the stop.
    """
    end = max_iter if stop < 0 else stop
    if iteration >= end:
        return 0.0
    if iteration < warmup:
        return (iteration + 1) / warmup
    return SCHEDULES[schedule]((iteration - warmup) / max(end - warmup, 1))
