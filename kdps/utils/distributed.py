# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Collectives that Detectron2's ``comm`` does not have."""

from __future__ import annotations

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch.nn import functional as F


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


@torch.no_grad()
def rank_share(count: float | torch.Tensor, device: torch.device) -> float | torch.Tensor:
    """The factor that makes a mean over this rank's rows a part of the mean over those of all.

    Distributed training averages the gradients of the ranks. So a mean over a rank's own rows, of
    which there may be more on one rank than on another, counts rows alike only if it is taken
    ``count`` times, by the mean count of the ranks. Every rank must call it.

    Args:
        count: what this rank's sum is divided by: a number, or a tensor of any number of them.
        device: of the losses.

    Returns:
        float32 tensor of as many, 1 where no rank has any; 1.0 for a process alone.
    """
    world_size = comm.get_world_size()
    if world_size == 1:
        return 1.0
    own = torch.as_tensor(count, dtype=torch.float32, device=device)
    total = own.clone()
    dist.all_reduce(total)
    return torch.where(total > 0, own * world_size / total, torch.ones_like(total))


def with_other_ranks(rows: torch.Tensor) -> torch.Tensor:
    """The rows of all ranks, for a loss that compares rows with each other.

    Every rank computes the same loss of them, each with the gradient of its own rows only, which is
    taken as often as there are ranks: their mean is then the gradient of the loss. Every rank must
    call it, with zero rows if it has none; a process alone gets its rows back.

    Args:
        rows: (R, ...) tensor, see :func:`all_gather_rows`.

    Returns:
        (sum of R, ...) tensor with the values of all ranks, in their order.
    """
    world_size = comm.get_world_size()
    if world_size == 1:
        return rows
    everyone = all_gather_rows(rows)
    counts = all_gather_rows(torch.tensor([len(rows)], device=rows.device))
    if not rows.requires_grad:
        return everyone
    first = int(counts[: comm.get_rank()].sum())
    # The sum of the value and of nothing but gradients.
    gradients = world_size * (rows - rows.detach())
    before, after = first, len(everyone) - first - len(rows)
    padding = [0, 0] * (rows.dim() - 1) + [before, after]
    return everyone + F.pad(gradients, padding)
