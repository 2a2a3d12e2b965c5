# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Small models of all methods, and what tests do with them."""

from typing import Any

import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import nn

import kdps.modeling  # noqa: F401  (registers the models)
from kdps.layers.lookup_table import LookupTable
from kdps.utils.testing import tiny_cfg


def build(*opts: Any, seed: int = 0) -> nn.Module:
    """The model of the tiny config with these options, from random weights."""
    torch.manual_seed(seed)
    return build_model(tiny_cfg(*opts))


def detector(*opts: Any) -> nn.Module:
    """A model in test mode that takes whatever its heads propose for a detection."""
    thresholds = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "MODEL.ALIGNPS.SCORE_THRESH_TEST")
    model = build(*(x for key in thresholds for x in (key, 0.0)), *opts).eval()
    with torch.no_grad():
        if hasattr(model, "head"):
            # Boxes around the cells of AlignPS that overlap.
            model.head.bbox_pred.bias.fill_(1.5)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                # Statistics of a random network, so that its embeddings differ.
                nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def train(model: nn.Module, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Losses of a step, whose gradients are in the model afterwards."""
    with EventStorage():
        losses = model.train()(batch)
    model.zero_grad()
    sum(losses.values()).backward()
    return losses


def memories_of(model: nn.Module) -> list[LookupTable]:
    """One for each stage that embeds."""
    return [m for m in model.modules() if isinstance(m, LookupTable)]


def assert_every_parameter_takes_part(model: nn.Module) -> None:
    """All have a finite gradient, as training in several processes needs it in every step."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
