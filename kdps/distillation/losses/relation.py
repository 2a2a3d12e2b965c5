# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How alike people are to each other, in the eyes of two networks."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from kdps.distillation.losses.base import DISTILL_LOSS_REGISTRY
from kdps.distillation.losses.people import PeopleLoss
from kdps.errors import KdpsError
from kdps.structures.distill_outputs import DistillOutputs

# Values of ROWS and of REDUCTION.
ROWS = ("plain", "normalised")
REDUCTIONS = ("mean", "sum")


def gram_loss(
    student: torch.Tensor, teacher: torch.Tensor, rows: str = "plain", reduction: str = "mean"
) -> torch.Tensor:
    """Squared difference of the cosines between all pairs of people.

    Embeddings may have different sizes, and any rotation of either space changes nothing. "plain"
    with a sum is what the public code of DDPS takes. "normalised" divides each row of both matrices
    by its length first: with a mean, the pair-wise relation-aware loss of "Diverse Knowledge
    Distillation for End-to-End Person Search" (Zhang et al., AAAI 2021), after "Similarity-
    Preserving Knowledge Distillation" (Tung and Mori, ICCV 2019).

    Args:
        student: (B, D) embeddings.
        teacher: (B, D') embeddings.
        rows: "plain" or "normalised".
        reduction: "mean" over the entries, or "sum".
    """
    own, theirs = F.normalize(student), F.normalize(teacher)
    own, theirs = own @ own.T, theirs @ theirs.T
    if rows == "normalised":
        own, theirs = F.normalize(own), F.normalize(theirs)
    total = (own - theirs).square().sum()
    return total if reduction == "sum" else total / max(own.numel(), 1)


def softmax_relation_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    temperature: float = 4.0,
    scale: float = 1.0,
    symmetric: bool = False,
) -> torch.Tensor:
    """Divergence of whom each person is most alike to.

    The cosines of a person to all others, by the temperature, are a distribution; the loss is the
    KL divergence of the student's from the teacher's times the squared temperature, averaged over
    the people. A person's cosine to itself has no part in it.

    Args:
        student: (B, D) embeddings.
        teacher: (B, D') embeddings.
        temperature: of the softmax.
        scale: factor on the cosines before.
        symmetric: the mean of both directions.
    """
    count = len(student)
    if count < 3:
        # With one other person there is nothing to choose.
        return student.sum() * 0.0
    own, theirs = F.normalize(student), F.normalize(teacher)
    others = ~torch.eye(count, dtype=torch.bool, device=student.device)
    own, theirs = (
        (x @ x.T * scale / temperature)[others].view(count, count - 1).log_softmax(dim=1)
        for x in (own, theirs)
    )
    loss = F.kl_div(own, theirs, reduction="batchmean", log_target=True)
    if symmetric:
        loss = (loss + F.kl_div(theirs, own, reduction="batchmean", log_target=True)) / 2
    return loss * temperature**2


@DISTILL_LOSS_REGISTRY.register()
class GramRelation(PeopleLoss):
    """:func:`gram_loss` over the people of a batch, averaged over the stages."""

    def __init__(self, *, rows: str = "plain", reduction: str = "mean", **kwargs) -> None:
        """
        Args:
            rows, reduction: see :func:`gram_loss`.
            kwargs: see :class:`PeopleLoss`.

        Raises:
            KdpsError: an unknown value; otherwise as :class:`PeopleLoss`.
        """
        super().__init__(**kwargs)
        for key, value, known in (("ROWS", rows, ROWS), ("REDUCTION", reduction, REDUCTIONS)):
            if value not in known:
                raise KdpsError(f"{key}: unknown value {value!r}; known: {', '.join(known)}")
        self.rows, self.reduction = rows, reduction

    def forward(self, student: DistillOutputs, teacher: DistillOutputs) -> dict[str, torch.Tensor]:
        losses = [
            gram_loss(own, theirs, self.rows, self.reduction)
            for own, theirs in self.embeddings(student, teacher)
        ]
        return {"loss_kd_gram": self.total(losses)}


@DISTILL_LOSS_REGISTRY.register()
class SoftmaxRelation(PeopleLoss):
    """:func:`softmax_relation_loss` over the people of a batch, averaged over the stages."""

    def __init__(
        self,
        *,
        temperature: float = 4.0,
        scale: float = 1.0,
        symmetric: bool = False,
        **kwargs,
    ) -> None:
        """
        Args:
            temperature, scale, symmetric: see :func:`softmax_relation_loss`.
            kwargs: see :class:`PeopleLoss`.

        Raises:
            KdpsError: a temperature of 0 or less; otherwise as :class:`PeopleLoss`.
        """
        super().__init__(**kwargs)
        if temperature <= 0:
            raise KdpsError(f"TEMPERATURE: must be above 0, not {temperature}")
        self.temperature, self.scale, self.symmetric = temperature, scale, symmetric

    def forward(self, student: DistillOutputs, teacher: DistillOutputs) -> dict[str, torch.Tensor]:
        losses = [
            softmax_relation_loss(own, theirs, self.temperature, self.scale, self.symmetric)
            for own, theirs in self.embeddings(student, teacher)
        ]
        return {"loss_kd_softmax_relation": self.total(losses)}
