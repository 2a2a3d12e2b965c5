# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The module that is trained when a student is distilled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from kdps.distillation.identities import tables_of, with_identities
from kdps.distillation.losses.base import DistillLoss
from kdps.distillation.teacher import TeacherOutputs
from kdps.distillation.windows import WindowSampler
from kdps.structures.distill_outputs import DistillOutputs


class Distiller(nn.Module):
    """A student and the losses between it and its teachers, with what adapts it to them.

    All that is trained has to be inside of the module that is wrapped for distributed training;
    the teachers are not. Without what they saw, this computes what the student does.

    Attributes:
        student: a person-search model (see :class:`kdps.modeling.meta_arch.Distillable`).
        losses: by the name in ``DISTILLATION.LOSSES``.
        factor: on the weights of all losses; whoever trains sets it in every step.
    """

    def __init__(
        self,
        student: nn.Module,
        losses: Mapping[str, DistillLoss],
        teachers: Mapping[str, str],
        weights: Mapping[str, float],
        windows: WindowSampler | None = None,
    ) -> None:
        """
        Args:
            student: the student.
            losses: by name.
            teachers: for each loss, the name of the teacher it compares with.
            weights: for each loss, its weight.
            windows: draws the windows for losses that look at them.
        """
        super().__init__()
        self.student = student
        self.losses = nn.ModuleDict(losses)
        self.teachers = dict(teachers)
        self.weights = dict(weights)
        self.factor = 1.0
        needed = any(loss.needs_windows for loss in self.losses.values())
        self.windows = windows if needed else None

    @property
    def device(self) -> torch.device:
        """Of the student."""
        return self.student.device

    def forward(
        self,
        batched_inputs: list[dict[str, Any]],
        teachers: Mapping[str, TeacherOutputs] | None = None,
    ) -> Any:
        """Losses in training, detections otherwise.

        Args:
            batched_inputs: see :meth:`kdps.modeling.meta_arch.Distillable.forward`.
            teachers: what each teacher saw in the batch; None in passes that distil nothing.
        """
        if teachers is None or not self.training:
            return self._plain(batched_inputs)
        tables = self._tables()
        windows = None
        if self.windows is not None:
            windows = [own.to(self.device) for own in self.windows(batched_inputs)]
        losses, seen = self.student.forward_distill(batched_inputs, windows)
        people, shifted = (
            {
                stage: with_identities(said, *tables[stage]) if stage in tables else said
                for stage, said in own.items()
            }
            for own in (seen.people, seen.windows)
        )
        # What a small difference of cosines would lose in half precision is what losses are about.
        with torch.autocast(self.device.type, enabled=False):
            return {
                **losses,
                **self._compare(replace(seen, people=people, windows=shifted), teachers),
            }

    def _plain(self, batched_inputs: list[dict[str, Any]]) -> Any:
        outputs = self.student(batched_inputs)
        if self.training and torch.is_grad_enabled():
            # After the last iteration with a teacher the adapters remain a part of the graph:
            # distributed training waits for the gradient of every parameter.
            idle = sum((p.sum() for p in self.losses.parameters()), start=torch.zeros(()))
            name = next(iter(outputs))
            outputs[name] = outputs[name] + 0.0 * idle.to(outputs[name].device)
        return outputs

    def _tables(self) -> dict[str, tuple[torch.Tensor, float]]:
        """The student's lookup tables as they are before OIM moves them in its loss."""
        if not any(loss.needs_identities for loss in self.losses.values()):
            return {}
        now = tables_of(self.student.memories())
        return {stage: (table.clone(), scale) for stage, (table, scale) in now.items()}

    def _compare(
        self, student: DistillOutputs, teachers: Mapping[str, TeacherOutputs]
    ) -> dict[str, torch.Tensor]:
        seen = {}
        for name, outputs in teachers.items():
            outputs.wait()
            seen[name] = outputs.describe(student)
        losses: dict[str, torch.Tensor] = {}
        for name, loss in self.losses.items():
            weight = self.weights[name] * self.factor
            for key, value in loss(student, seen[self.teachers[name]]).items():
                # Two nodes of one class tell their losses apart by their own names.
                own = f"{key}_{name}" if key in losses else key
                losses[own] = weight * value
        return losses
