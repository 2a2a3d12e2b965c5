# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Whom each person is near to, from the student to the teacher."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from kdps.distillation.losses.base import DISTILL_LOSS_REGISTRY, NetworkShape
from kdps.distillation.losses.people import PeopleLoss, projected, stage_projections
from kdps.errors import KdpsError
from kdps.structures.distill_outputs import DistillOutputs
from kdps.utils.distributed import with_other_ranks


def triplet_relation_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    pids: torch.Tensor,
    margin: float = 0.3,
    mask_same_pid: bool = True,
) -> torch.Tensor:
    """The student's embedding of a person is nearer to the teacher's of them than of all others.

    The triplet-wise relation-aware loss of "Diverse Knowledge Distillation for End-to-End Person
    Search" (Zhang et al., AAAI 2021): the mean of [m + |s_i - t_i| - min_j |s_i - t_j|]_+ over
    people i and others j, with Euclidean distances of rows of unit length.

    Args:
        student, teacher: (B, D) embeddings of the same people.
        pids: (B,) identities, -1 for unlabelled people.
        margin: m.
        mask_same_pid: other boxes of the same identity are no others (ours: the paper only says
            that j is not i).

    Returns:
        a scalar; zero where a person has no other.
    """
    if len(student) == 0:
        return student.sum() * 0.0
    own, theirs = F.normalize(student), F.normalize(teacher)
    # Not the square root of a product: near zero it has neither digits nor a gradient.
    distances = torch.cdist(own, theirs, compute_mode="donot_use_mm_for_euclid_dist")
    same = torch.eye(len(own), dtype=torch.bool, device=own.device)
    if mask_same_pid:
        same = same | ((pids[:, None] == pids[None, :]) & (pids >= 0)[:, None])
    others = distances.masked_fill(same, torch.inf).amin(dim=1)
    alone = others.isinf()
    hinge = (margin + distances.diagonal() - others.masked_fill(alone, 0.0)).clamp(min=0.0)
    return hinge.masked_fill(alone, 0.0).mean()


@DISTILL_LOSS_REGISTRY.register()
class TripletRelation(PeopleLoss):
    """:func:`triplet_relation_loss` over the people of a batch, averaged over the stages.

    Where embeddings differ in size, the student's are projected to the teacher's.
    """

    def __init__(
        self,
        *,
        student: NetworkShape,
        teacher: NetworkShape,
        margin: float = 0.3,
        mask_same_pid: bool = True,
        **kwargs,
    ) -> None:
        """
        Args:
            student, teacher: see :class:`DistillLoss`.
            margin, mask_same_pid: see :func:`triplet_relation_loss`.
            kwargs: see :class:`PeopleLoss`.

        Raises:
            KdpsError: a negative margin; otherwise as :class:`PeopleLoss`.
        """
        super().__init__(student=student, teacher=teacher, **kwargs)
        if margin < 0:
            raise KdpsError(f"MARGIN: must be 0 or more, not {margin}")
        self.margin, self.mask_same_pid = margin, mask_same_pid
        self.projections = stage_projections(self.stages, student, teacher)

    def forward(self, student: DistillOutputs, teacher: DistillOutputs) -> dict[str, torch.Tensor]:
        losses = []
        for stage, own, theirs, rows in self.people(student, teacher):
            embeddings = projected(self.projections, stage, own.embeddings[rows])
            loss = triplet_relation_loss(
                with_other_ranks(embeddings),
                with_other_ranks(theirs.embeddings[rows].detach().float()),
                with_other_ranks(own.pids[rows]),
                self.margin,
                self.mask_same_pid,
            )
            losses.append(loss)
        return {"loss_kd_triplet": self.total(losses)}
