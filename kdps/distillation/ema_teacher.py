# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The running mean of the student as its own teacher."""

from __future__ import annotations

import copy
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from kdps.distillation.network_teacher import NetworkTeacher
from kdps.distillation.shapes import network_shape
from kdps.distillation.teacher import TEACHER_REGISTRY
from kdps.engine.distributed import share_buffers
from kdps.errors import KdpsError


@TEACHER_REGISTRY.register()
class EMATeacher(NetworkTeacher):
    """The exponential moving average of the student's parameters, with its newest buffers.

    Of several processes, each with running statistics of its own, the teacher has those of the
    first in all of them, which are the ones that a checkpoint holds.

    "Mean teachers are better role models" (Tarvainen and Valpola, NeurIPS 2017).
    """

    def __init__(
        self,
        name: str,
        cfg: CfgNode,
        student: nn.Module,
        *,
        momentum: float = 0.999,
        half_precision: bool = False,
        own_stream: bool = False,
    ) -> None:
        """
        Args:
            name: in ``DISTILLATION.TEACHERS``.
            cfg: the student's config.
            student: what it follows.
            momentum: weight of the mean's old value, in [0, 1).
            half_precision, own_stream: see :class:`NetworkTeacher`.

        Raises:
            KdpsError: the momentum is outside of [0, 1).
        """
        if not 0.0 <= momentum < 1.0:
            raise KdpsError(f"DISTILLATION.{name}.MOMENTUM: {momentum} is outside [0, 1)")
        super().__init__(
            name,
            copy.deepcopy(student),
            cfg,
            cfg.INPUT.FORMAT,
            own_size=False,
            half_precision=half_precision,
            own_stream=own_stream,
        )
        self.student = student
        self.momentum = momentum
        self.shape = network_shape(student)
        self.identities = tuple(cfg.DATASETS.TRAIN)

    def start(self) -> None:
        # By now the student has the weights that it starts from.
        self.model.load_state_dict(self.student.state_dict())

    @torch.no_grad()
    def after_step(self) -> None:
        for mean, new in zip(self.model.parameters(), self.student.parameters(), strict=True):
            mean.lerp_(new, 1.0 - self.momentum)
        for own, new in zip(self.model.buffers(), self.student.buffers(), strict=True):
            own.copy_(new)
        share_buffers(self.model)

    def state_dict(self) -> dict[str, Any]:
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state)
