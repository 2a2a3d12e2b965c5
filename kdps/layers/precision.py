# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Full precision inside of mixed precision, and half precision inside of either."""

from __future__ import annotations

from collections.abc import Callable

import torch


def in_float32(layer: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """What a layer makes of ``x`` in float32, whatever precision is around.

    For last layers: in half precision sure detections would have one score, and boxes of large
    images would be off by pixels.
    """
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.float())


def half_precision(device: torch.device, enabled: bool) -> torch.autocast:
    """A frozen network's own precision: half, or full, inside of any other.

    Half is float16 on a GPU and bfloat16 on a CPU, and never what is around.
    """
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=enabled)
