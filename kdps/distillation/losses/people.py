# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Which people of a batch two networks are compared on, and in which stages."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from kdps.distillation.losses.base import DistillLoss, NetworkShape, chosen_stages
from kdps.errors import KdpsError
from kdps.structures.distill_outputs import DistillOutputs, PersonOutputs
from kdps.utils.distributed import with_other_ranks

# Values of PLACES, and the field of DistillOutputs for each.
PLACES = {"sampled": "people", "windows": "windows"}


class PeopleLoss(DistillLoss):
    """What losses on people share: stages that embed, and rows of persons in them."""

    def __init__(
        self,
        *,
        student: NetworkShape,
        teacher: NetworkShape,
        stages: tuple[str, ...] = (),
        unlabelled: bool = True,
        places: tuple[str, ...] = ("sampled",),
    ) -> None:
        """
        Args:
            student, teacher: see :class:`DistillLoss`.
            stages: of the student, such as "reid"; empty: all that embed. The loss is the mean over
                them.
            unlabelled: persons without an identity take part.
            places: where people are compared: "sampled" is where the student trains, "windows" are
                annotated boxes that are shifted for both networks alike (spatial-invariant
                augmentation of "Diverse Knowledge Distillation for End-to-End Person Search", Zhang
                et al., AAAI 2021). The loss is the sum over them.

        Raises:
            KdpsError: the student has no such stage, or there are no such places.
        """
        super().__init__(student=student, teacher=teacher)
        unknown = [own for own in places if own not in PLACES]
        if unknown or not places:
            wrong = repr(unknown[0]) if unknown else "empty"
            raise KdpsError(f"PLACES: {wrong}; known: {', '.join(PLACES)}")
        self.stages = chosen_stages(stages, tuple(student.embedding_dims), " that embeds")
        self.unlabelled = unlabelled
        self.places = places
        self.needs_windows = "windows" in places

    def people(
        self, student: DistillOutputs, teacher: DistillOutputs
    ) -> Iterator[tuple[str, PersonOutputs, PersonOutputs, torch.Tensor]]:
        """Stages with what both say there, and which rows (R,) bool are persons that take part.

        Each stage comes once for each kind of places.
        """
        for kind in self.places:
            own_people, their_people = (getattr(x, PLACES[kind]) for x in (student, teacher))
            for stage in self.stages:
                own = own_people[stage]
                rows = own.is_person
                if not self.unlabelled:
                    rows = rows & (own.pids >= 0)
                yield stage, own, their_people[stage], rows

    def total(self, losses: list[torch.Tensor]) -> torch.Tensor:
        """The loss from those of all that :meth:`people` gives."""
        return torch.stack(losses).sum() / len(self.stages)

    def embeddings(
        self, student: DistillOutputs, teacher: DistillOutputs, max_persons: int = 0
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pairs of (B, D) and (B, D') float32 embeddings of the persons of each stage.

        They are those of all ranks, see :func:`with_other_ranks`.

        Args:
            student, teacher: what both say.
            max_persons: bound of B; more persons are thinned out evenly. 0: no bound.
        """
        for _, own, theirs, rows in self.people(student, teacher):
            mine = with_other_ranks(own.embeddings[rows].float())
            other = with_other_ranks(theirs.embeddings[rows].detach().float())
            if 0 < max_persons < len(mine):
                step = torch.arange(max_persons, device=mine.device) * len(mine) // max_persons
                mine, other = mine[step], other[step]
            yield mine, other


def stage_projections(
    stages: tuple[str, ...], student: NetworkShape, teacher: NetworkShape
) -> nn.ModuleDict:
    """A linear map to the teacher's embeddings for each stage whose own have another size."""
    # The stage that answers for one that the teacher does not have is its last.
    last = list(teacher.embedding_dims.values())[-1]
    sizes = {
        stage: (student.embedding_dims[stage], teacher.embedding_dims.get(stage, last))
        for stage in stages
    }
    return nn.ModuleDict(
        {
            stage: nn.Linear(own, theirs, bias=False)
            for stage, (own, theirs) in sizes.items()
            if own != theirs
        }
    )


def projected(projections: nn.ModuleDict, stage: str, embeddings: torch.Tensor) -> torch.Tensor:
    """(B, D) embeddings of a stage as (B, D') float32 rows that the teacher's compare with."""
    if stage not in projections:
        return embeddings.float()
    return F.normalize(projections[stage](embeddings.float()).float())
