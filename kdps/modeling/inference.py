# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A trained model made faster for inference, with the same outputs up to rounding."""

from __future__ import annotations

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn

from kdps.checkpoint.fingerprint import remember_weights_hash

_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)


def prepare_for_inference(model: nn.Module) -> nn.Module:
    """Fold norms into convolutions and, on a CPU, order weights by channels last; in place.

    The model can neither be trained nor saved as a checkpoint afterwards. Its ``weights_hash``
    stays that of the weights it came with.

    Returns:
        the model, in evaluation mode.
    """
    model.eval()
    remember_weights_hash(model)
    with torch.no_grad():
        fold_norms(model)
    if all(parameter.device.type == "cpu" for parameter in model.parameters()):
        # The CPU's convolutions reorder everything else on the way in and out.
        model.to(memory_format=torch.channels_last)
    return model


def fold_norms(model: nn.Module) -> None:
    """Multiply the batch norms that follow a convolution at once into its weights, in place.

    These are the norms of Detectron2's ``Conv2d``, and those next to a convolution in a
    ``nn.Sequential``.
    """
    for module in list(model.modules()):
        if isinstance(module, Conv2d) and _has_statistics(module.norm):
            _fold(module, module.norm)
            module.norm = None
        elif isinstance(module, nn.Sequential):
            children = list(module.named_children())
            for (_, conv), (name, norm) in zip(children[:-1], children[1:], strict=True):
                plain = isinstance(conv, nn.Conv2d) and not getattr(conv, "activation", None)
                if plain and _has_statistics(norm):
                    _fold(conv, norm)
                    setattr(module, name, nn.Identity())


def _has_statistics(norm: nn.Module | None) -> bool:
    return isinstance(norm, _NORMS) and norm.running_mean is not None


def _fold(conv: nn.Conv2d, norm: nn.Module) -> None:
    # In float64, so that folding adds one rounding only.
    variance = norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if conv.bias is not None:
        shift = shift + conv.bias.double() * scale
    weight = conv.weight.double() * scale[:, None, None, None]
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=False)
