# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Which people of a batch two networks are compared on, and in which stages."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from kdps.distillation.losses.base import DistillLoss, NetworkShape, chosen_stages
from kdps.structures.distill_outputs import DistillOutputs, PersonOutputs


class PeopleLoss(DistillLoss):
    """What losses on people share: stages that embed, and rows of persons in them."""

    def __init__(
        self,
        *,
        student: NetworkShape,
        teacher: NetworkShape,
        stages: tuple[str, ...] = (),
        unlabelled: bool = True,
    ) -> None:
        """
        Args:
            student, teacher: see :class:`DistillLoss`.
            stages: of the student, such as "reid"; empty: all that embed. The loss is the mean over
                them.
            unlabelled: persons without an identity take part.

        Raises:
            KdpsError: the student has no such stage.
        """
        super().__init__(student=student, teacher=teacher)
        self.stages = chosen_stages(stages, tuple(student.embedding_dims), " that embeds")
        self.unlabelled = unlabelled

    def people(
        self, student: DistillOutputs, teacher: DistillOutputs
    ) -> Iterator[tuple[str, PersonOutputs, PersonOutputs, torch.Tensor]]:
        """Stages with what both say there, and which rows (R,) bool are persons that take part."""
        for stage in self.stages:
            own = student.people[stage]
            rows = own.is_person
            if not self.unlabelled:
                rows = rows & (own.pids >= 0)
            yield stage, own, teacher.people[stage], rows

    def embeddings(
        self, student: DistillOutputs, teacher: DistillOutputs, max_persons: int = 0
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pairs of (B, D) and (B, D') float32 embeddings of the persons of each stage.

        Args:
            student, teacher: what both say.
            max_persons: bound of B; more persons are thinned out evenly. 0: no bound.
        """
        for _, own, theirs, rows in self.people(student, teacher):
            index = rows.nonzero().flatten()
            if 0 < max_persons < len(index):
                step = torch.arange(max_persons, device=index.device) * len(index) // max_persons
                index = index[step]
            yield own.embeddings[index].float(), theirs.embeddings[index].detach().float()
