# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Distances and angles between people (RKD)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from kdps.distillation.losses.base import DISTILL_LOSS_REGISTRY
from kdps.distillation.losses.people import PeopleLoss
from kdps.errors import KdpsError
from kdps.structures.distill_outputs import DistillOutputs

_EPS = 1e-12


def distance_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Smooth L1 between the distances of all pairs, each divided by their mean over the pairs.

    "Relational Knowledge Distillation" (Park et al., CVPR 2019), equations 5 to 7.

    Args:
        student: (B, D) embeddings.
        teacher: (B, D') embeddings.
    """
    if len(student) < 2:
        return student.sum() * 0.0
    return F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))


def angle_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Smooth L1 between the cosines of the angles at the middle one of all three people.

    The same paper, equations 8 and 9; over ordered triples of three different people. Memory grows
    with the third power of B.

    Args:
        student: (B, D) embeddings.
        teacher: (B, D') embeddings.
    """
    count = len(student)
    if count < 3:
        return student.sum() * 0.0
    same = torch.eye(count, dtype=torch.bool, device=student.device)
    # At j, between i and k.
    different = ~(same[:, :, None] | same[:, None, :] | same[None, :, :])
    return F.smooth_l1_loss(_angles(student)[different], _angles(teacher)[different])


def _relative_distances(x: torch.Tensor) -> torch.Tensor:
    """(B (B - 1),) distances of ordered pairs by their mean."""
    count = len(x)
    others = ~torch.eye(count, dtype=torch.bool, device=x.device)
    squares = (x[:, None] - x[None]).square().sum(dim=2)[others]
    # The root of zero has no gradient.
    distances = squares.clamp(min=_EPS).sqrt()
    return distances / distances.mean()


def _angles(x: torch.Tensor) -> torch.Tensor:
    """(B, B, B) cosines at the first index, between the directions to the other two."""
    away = x[None] - x[:, None]
    length = away.square().sum(dim=2, keepdim=True).clamp(min=_EPS).sqrt()
    directions = away / length
    return torch.einsum("jid,jkd->jik", directions, directions)


class _Relational(PeopleLoss):
    name: str
    relation: staticmethod

    def __init__(self, *, max_persons: int = 64, **kwargs) -> None:
        """
        Args:
            max_persons: of a batch; more are thinned out evenly. 0: all.
            kwargs: see :class:`PeopleLoss`.

        Raises:
            KdpsError: a negative number; otherwise as :class:`PeopleLoss`.
        """
        super().__init__(**kwargs)
        if max_persons < 0:
            raise KdpsError(f"MAX_PERSONS: must be 0 (all) or more, not {max_persons}")
        self.max_persons = max_persons

    def forward(self, student: DistillOutputs, teacher: DistillOutputs) -> dict[str, torch.Tensor]:
        losses = [
            type(self).relation(own, theirs)
            for own, theirs in self.embeddings(student, teacher, self.max_persons)
        ]
        return {self.name: self.total(losses)}


@DISTILL_LOSS_REGISTRY.register()
class DistanceRelation(_Relational):
    """:func:`distance_loss` over the people of a batch, averaged over the stages."""

    name = "loss_kd_distance"
    relation = staticmethod(distance_loss)


@DISTILL_LOSS_REGISTRY.register()
class AngleRelation(_Relational):
    """:func:`angle_loss` over the people of a batch, averaged over the stages."""

    name = "loss_kd_angle"
    relation = staticmethod(angle_loss)
