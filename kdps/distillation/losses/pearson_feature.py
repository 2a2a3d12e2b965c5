# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Imitation of feature maps up to the scale and the offset of each channel."""

from __future__ import annotations

import torch

from kdps.distillation.losses.base import DISTILL_LOSS_REGISTRY
from kdps.distillation.losses.taps import FeatureLoss, valid_cells
from kdps.structures.distill_outputs import DistillOutputs


def pearson_loss(student: torch.Tensor, teacher: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """One minus the Pearson correlation of each channel, averaged over the channels.

    "PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient"
    (Cao et al., NeurIPS 2022), equation 3: half of the mean squared difference of standardised
    channels.

    Args:
        student, teacher: (R, C) values of R cells.
        eps: added to the standard deviations; a channel that never changes correlates with nothing.
    """
    return 0.5 * (_standardised(student, eps) - _standardised(teacher, eps)).square().mean()


def _standardised(x: torch.Tensor, eps: float) -> torch.Tensor:
    centred = x - x.mean(dim=0)
    # Below the root, so that the gradient of a constant channel is finite.
    return centred * (centred.square().mean(dim=0) + eps * eps).rsqrt()


@DISTILL_LOSS_REGISTRY.register()
class PearsonFeature(FeatureLoss):
    """:func:`pearson_loss` over the cells of all images, averaged over the maps."""

    def forward(self, student: DistillOutputs, teacher: DistillOutputs) -> dict[str, torch.Tensor]:
        losses = []
        for own, theirs in self.compared(student, teacher):
            cells = valid_cells(student, own.shape[-2:])
            rows = own.permute(0, 2, 3, 1)[cells], theirs.permute(0, 2, 3, 1)[cells]
            losses.append(pearson_loss(*rows))
        return {"loss_kd_pearson": torch.stack(losses).mean()}
