# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Which weights a model has, in one line."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

_REMEMBERED = "weights_sha256"


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of all parameters and buffers.

    It is the same on every device and whatever file the weights came from. A model that is wrapped
    for distributed training has the hash of what it wraps.
    """
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model = model.module
    known = getattr(model, _REMEMBERED, None)
    if known is not None:
        return known
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            # As bytes, since NumPy does not know all types.
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def remember_weights_hash(model: nn.Module) -> None:
    """Let the model keep its present hash, before its weights are brought into another form."""
    setattr(model, _REMEMBERED, weights_hash(model))
