# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Plain imitation of feature maps, where people are."""

from __future__ import annotations

import torch

from kdps.distillation.losses.base import DISTILL_LOSS_REGISTRY
from kdps.distillation.losses.masks import person_masks
from kdps.distillation.losses.taps import FeatureLoss, valid_cells
from kdps.errors import KdpsError
from kdps.structures.distill_outputs import DistillOutputs
from kdps.utils.distributed import rank_share

# Values of MASK: the cells that are compared.
MASKS = ("foreground", "all")


def imitation_loss(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Mean squared difference over the channels of chosen cells.

    Args:
        student, teacher: (N, C, H, W) maps.
        mask: (N, H, W) weights of the cells.

    Returns:
        a scalar; zero without any cell. It does not depend on the resolution of the maps.
    """
    squares = (student - teacher).square().mean(dim=1)
    return (squares * mask).sum() / mask.sum().clamp(min=1e-6)


@DISTILL_LOSS_REGISTRY.register()
class FeatureImitation(FeatureLoss):
    """:func:`imitation_loss`, averaged over the maps.

    After "Learning Efficient Object Detection Models with Knowledge Distillation" (Chen et al.,
    NIPS 2017), section 3.4, on the cells of people only.
    """

    def __init__(self, *, mask: str = "foreground", **kwargs) -> None:
        """
        Args:
            mask: "foreground" compares cells on annotated people, all alike; "all" every cell.
            kwargs: see :class:`FeatureLoss`.

        Raises:
            KdpsError: an unknown mask; otherwise as :class:`FeatureLoss`.
        """
        super().__init__(**kwargs)
        if mask not in MASKS:
            raise KdpsError(f"MASK: unknown value {mask!r}; known: {', '.join(MASKS)}")
        self.mask = mask

    def forward(self, student: DistillOutputs, teacher: DistillOutputs) -> dict[str, torch.Tensor]:
        losses = []
        for own, theirs in self.compared(student, teacher):
            size = own.shape[-2:]
            if self.mask == "all":
                cells = valid_cells(student, size)
            else:
                cells = person_masks(student, size)[0] > 0
            share = rank_share(cells.sum(), cells.device)
            losses.append(imitation_loss(own, theirs, cells.float()) * share)
        return {"loss_kd_feature": torch.stack(losses).mean()}
