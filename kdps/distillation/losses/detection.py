# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Where people are, in the eyes of two networks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from fvcore.nn import giou_loss
from torch.nn import functional as F

from kdps.distillation.losses.base import (
    DISTILL_LOSS_REGISTRY,
    DistillLoss,
    NetworkShape,
    chosen_stages,
)
from kdps.errors import KdpsError
from kdps.structures.distill_outputs import DistillOutputs, PersonOutputs, Places
from kdps.utils.distributed import rank_share

# Values of AVERAGE: by what the sum over places is divided.
AVERAGES = ("places", "people")


def score_loss(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0, focus: float = 0.0
) -> torch.Tensor:
    """Divergence of two probabilities of being a person, for each place.

    The binary KL divergence of the student's from the teacher's, times the squared temperature.
    "Decoupled Knowledge Distillation" (Zhao et al., CVPR 2022) adds a term over the classes that
    are not the target; with one class there is none, so that this is all of it.

    Args:
        student, teacher: (R,) logits.
        temperature: of both sigmoids.
        focus: each place counts the difference of both probabilities to this power, as in "Quality
            Focal Loss" (Li et al., NeurIPS 2020); so the many easy cells of a dense head do not
            drown the others. The weight is constant for the gradient.

    Returns:
        (R,) losses.
    """
    own, theirs = student.float() / temperature, teacher.float() / temperature
    target = theirs.sigmoid()
    losses = F.binary_cross_entropy_with_logits(own, target, reduction="none")
    losses = losses - F.binary_cross_entropy_with_logits(theirs, target, reduction="none")
    if focus > 0:
        losses = losses * (own.detach().sigmoid() - target).abs().pow(focus)
    return losses * temperature**2


class _PlacesLoss(DistillLoss):
    """What losses on detections share: the stages that are compared."""

    def __init__(
        self, *, student: NetworkShape, teacher: NetworkShape, stages: tuple[str, ...] = ()
    ) -> None:
        """
        Args:
            student, teacher: see :class:`DistillLoss`.
            stages: of the student, such as "detector"; empty: all. The loss is the mean over them.

        Raises:
            KdpsError: the student has no such stage, or the teacher cannot be asked about it.
        """
        super().__init__(student=student, teacher=teacher)
        own, theirs = (
            x.stages if x.detecting_stages is None else x.detecting_stages
            for x in (student, teacher)
        )
        self.stages = chosen_stages(stages, own, " that detects")
        for stage in self.stages:
            # The stage that answers for one that the teacher does not have is its last; a teacher
            # that names no stages is taken to answer for all.
            answering = (stage,) if stage in teacher.stages else teacher.stages[-1:]
            if not set(answering) <= set(theirs):
                raise KdpsError(f"STAGES: the teacher has neither scores nor boxes for {stage!r}")
        if "detector" in self.stages and student.dense and not teacher.dense:
            raise KdpsError(
                "STAGES: 'detector' of the student looks at every cell of a map, which a teacher "
                "with regions cannot be asked about; name other stages"
            )

    def said(
        self, student: DistillOutputs, teacher: DistillOutputs
    ) -> Iterator[tuple[PersonOutputs, PersonOutputs]]:
        """What both say in each stage."""
        for stage in self.stages:
            yield student.people[stage], teacher.people[stage]


@DISTILL_LOSS_REGISTRY.register()
class DetectionResponse(_PlacesLoss):
    """:func:`score_loss` over the places of a batch, averaged over the stages.

    Of a dense head, cells in the padding of their image are left out: it is not the same in both
    networks.
    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        focus: float = 0.0,
        average: str = "places",
        **kwargs,
    ) -> None:
        """
        Args:
            temperature, focus: see :func:`score_loss`.
            average: "places" is the mean over all places, persons or not; "people" divides their
                sum by the number of places that are persons, as losses of dense heads do.
            kwargs: "student", "teacher" and "stages".

        Raises:
            KdpsError: an unknown average, a temperature of 0 or less, a negative focus.
        """
        super().__init__(**kwargs)
        if average not in AVERAGES:
            known = ", ".join(AVERAGES)
            raise KdpsError(f"AVERAGE: unknown value {average!r}; known: {known}")
        if temperature <= 0:
            raise KdpsError(f"TEMPERATURE: must be above 0, not {temperature}")
        if focus < 0:
            raise KdpsError(f"FOCUS: must be 0 or more, not {focus}")
        self.temperature, self.focus, self.average = temperature, focus, average

    def forward(self, student: DistillOutputs, teacher: DistillOutputs) -> dict[str, torch.Tensor]:
        losses = []
        for own, theirs in self.said(student, teacher):
            each = score_loss(
                own.person_logits, theirs.person_logits.detach(), self.temperature, self.focus
            )
            inside = _inside(own.places, student.image_sizes)
            if inside is not None:
                each = each[inside]
            count = int(own.is_person.sum()) if self.average == "people" else len(each)
            losses.append(each.sum() / max(count, 1) * rank_share(count, each.device))
        return {"loss_kd_score": torch.stack(losses).mean()}


def _inside(places: Places, sizes: list[tuple[int, int]]) -> torch.Tensor | None:
    """(R,) bool, points that lie in their image; None where places are regions."""
    if places.points is None:
        return None
    sides = [own.new_tensor(size[::-1]) for own, size in zip(places.points, sizes, strict=True)]
    return torch.cat(
        [(own < side).all(dim=1) for own, side in zip(places.points, sides, strict=True)]
    )


@DISTILL_LOSS_REGISTRY.register()
class BoxResponse(_PlacesLoss):
    """One minus the generalised IoU of both networks' boxes of persons, averaged over the stages.

    "Generalized Intersection over Union" (Rezatofighi et al., CVPR 2019) as the distance between
    what student and teacher regress from the same place.
    """

    def forward(self, student: DistillOutputs, teacher: DistillOutputs) -> dict[str, torch.Tensor]:
        losses = []
        for own, theirs in self.said(student, teacher):
            boxes = own.boxes[own.is_person].float()
            targets = theirs.boxes[own.is_person].detach().float()
            mean = giou_loss(boxes, targets, reduction="sum") / max(len(boxes), 1)
            losses.append(mean * rank_share(len(boxes), boxes.device))
        return {"loss_kd_box": torch.stack(losses).mean()}
