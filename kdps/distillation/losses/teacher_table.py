# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The teacher's lookup table as what the student's embeddings are to match."""

from __future__ import annotations

import torch

from kdps.distillation.losses.base import DISTILL_LOSS_REGISTRY, NetworkShape
from kdps.distillation.losses.people import PeopleLoss, projected, stage_projections
from kdps.errors import KdpsError
from kdps.modeling.losses import oim_loss
from kdps.structures.distill_outputs import DistillOutputs
from kdps.utils.distributed import rank_share


@DISTILL_LOSS_REGISTRY.register()
class TeacherTable(PeopleLoss):
    """OIM's loss against the lookup table of the teacher, which stays as it is.

    "Knowledge Distillation for End-to-End Person Search" (Munjal et al., BMVC 2019), which puts
    such a table in the place of the student's own; here it stands beside it. Identities that the
    teacher does not know take no part. Where embeddings have other sizes, a linear layer brings the
    student's to the teacher's.
    """

    needs_identities = True

    def __init__(
        self, *, student: NetworkShape, teacher: NetworkShape, scale: float = 30.0, **kwargs
    ) -> None:
        """
        Args:
            student, teacher: see :class:`DistillLoss`.
            scale: factor on the cosines.
            kwargs: see :class:`PeopleLoss`.

        Raises:
            KdpsError: a scale of 0 or less; otherwise as :class:`PeopleLoss`.
        """
        super().__init__(student=student, teacher=teacher, **kwargs)
        if scale <= 0:
            raise KdpsError(f"SCALE: must be above 0, not {scale}")
        self.scale = scale
        self.projections = stage_projections(self.stages, student, teacher)

    def forward(self, student: DistillOutputs, teacher: DistillOutputs) -> dict[str, torch.Tensor]:
        losses = []
        for stage, own, theirs, rows in self.people(student, teacher):
            embeddings = projected(self.projections, stage, own.embeddings[rows])
            pids = own.pids[rows]
            # The table of an unlabelled person has no row; the index is not looked at.
            known = (pids >= 0) & theirs.known[pids.clamp(min=0)]
            empty = theirs.table.new_zeros(0, theirs.table.shape[1])
            loss = oim_loss(embeddings[known], pids[known], theirs.table, empty, self.scale)
            loss = loss * rank_share(known.sum(), known.device)
            # Without anybody, the projection remains a part of the graph.
            losses.append(loss + 0.0 * embeddings.sum())
        return {"loss_kd_table": self.total(losses)}
