# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Collectives that Detectron2's ``comm`` does not have."""

from __future__ import annotations

import torch
import torch.distributed as dist
from detectron2.utils import comm


@torch.no_grad()
def all_gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Concatenate the rows of all ranks, in the order of the ranks.

    Every rank must call it, with zero rows if it has none. Works on the backend of the default
    group (gloo for CPU tensors, nccl for CUDA tensors); without a group it returns ``rows``.

    Args:
        rows: (R, ...) tensor; R may differ between ranks, the rest may not.

    Returns:
        (sum of R, ...) tensor without gradient, equal on every rank.
    """
    rows = rows.detach()
    world_size = comm.get_world_size()
    if world_size == 1:
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(world_size)]
    dist.all_gather(counts, count)
    lengths = [int(c) for c in counts]
    # all_gather wants equal shapes, so each rank pads to the longest.
    padded = rows.new_zeros((max(lengths), *rows.shape[1:]))
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in range(world_size)]
    dist.all_gather(gathered, padded)
    return torch.cat([part[:n] for part, n in zip(gathered, lengths, strict=True)])
