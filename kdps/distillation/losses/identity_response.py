# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Who a person could be, in the eyes of two networks."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from kdps.distillation.losses.base import DISTILL_LOSS_REGISTRY
from kdps.distillation.losses.people import PeopleLoss
from kdps.errors import KdpsError
from kdps.structures.distill_outputs import DistillOutputs
from kdps.utils.distributed import rank_share

# Values of DIRECTION: whose distribution the other's is measured from.
DIRECTIONS = ("teacher", "student", "both")


def identity_response_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    known: torch.Tensor,
    temperature: float = 2.0,
    direction: str = "teacher",
) -> torch.Tensor:
    """Divergence of two distributions over the labelled identities.

    The logits are similarities to the rows of each network's own lookup table. The loss is the KL
    divergence times the squared temperature, averaged over the people ("Distilling the Knowledge in
    a Neural Network", Hinton et al., 2015).

    Args:
        student: (B, P) logits.
        teacher: (B, P) logits.
        known: (P,) bool, the identities that take part: those that are in both tables.
        temperature: of both softmaxes.
        direction: "teacher" is KL(teacher || student), which wants the student to allow for all
            that the teacher does; "student" is KL(student || teacher); "both" their mean.

    Returns:
        a scalar; zero where fewer than two identities are known.
    """
    if len(student) == 0 or int(known.sum()) < 2:
        return student.sum() * 0.0
    own, theirs = (
        (x[:, known].float() / temperature).log_softmax(dim=1) for x in (student, teacher)
    )
    loss = student.new_zeros((), dtype=torch.float32)
    if direction in ("teacher", "both"):
        loss = loss + F.kl_div(own, theirs, reduction="batchmean", log_target=True)
    if direction in ("student", "both"):
        loss = loss + F.kl_div(theirs, own, reduction="batchmean", log_target=True)
    return loss * temperature**2 / (2 if direction == "both" else 1)


@DISTILL_LOSS_REGISTRY.register()
class IdentityResponse(PeopleLoss):
    """:func:`identity_response_loss` over the people of a batch, averaged over the stages.

    Only the lookup table is compared. The slots of the circular queues mean other people in every
    network.
    """

    needs_identities = True

    def __init__(self, *, temperature: float = 2.0, direction: str = "teacher", **kwargs) -> None:
        """
        Args:
            temperature, direction: see :func:`identity_response_loss`.
            kwargs: see :class:`PeopleLoss`.

        Raises:
            KdpsError: a temperature of 0 or less, an unknown direction; otherwise as
                :class:`PeopleLoss`.
        """
        super().__init__(**kwargs)
        if temperature <= 0:
            raise KdpsError(f"TEMPERATURE: must be above 0, not {temperature}")
        if direction not in DIRECTIONS:
            known = ", ".join(DIRECTIONS)
            raise KdpsError(f"DIRECTION: unknown value {direction!r}; known: {known}")
        self.temperature, self.direction = temperature, direction

    def forward(self, student: DistillOutputs, teacher: DistillOutputs) -> dict[str, torch.Tensor]:
        losses = [
            identity_response_loss(
                own.identity_logits[rows],
                theirs.identity_logits[rows].detach(),
                own.known & theirs.known,
                self.temperature,
                self.direction,
            )
            * rank_share(rows.sum(), rows.device)
            for _, own, theirs, rows in self.people(student, teacher)
        ]
        return {"loss_kd_identity": self.total(losses)}
