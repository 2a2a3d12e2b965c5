# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Teachers, losses and distiller of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from torch import nn

from kdps.data.person_crops import window_range
from kdps.distillation.distiller import Distiller
from kdps.distillation.losses.base import DISTILL_LOSS_REGISTRY, DistillLoss
from kdps.distillation.settings import (
    PartSettings,
    loss_settings,
    parameters_of,
    teacher_settings,
)
from kdps.distillation.shapes import network_shape
from kdps.distillation.teacher import TEACHER_REGISTRY, Teacher
from kdps.distillation.windows import WindowSampler
from kdps.errors import KdpsError


def build_teachers(cfg: CfgNode, student: nn.Module) -> dict[str, Teacher]:
    """The teachers of ``DISTILLATION.TEACHERS``, by name.

    Args:
        cfg: the student's config.
        student: what a teacher may follow (see :class:`EMATeacher`).

    Raises:
        KdpsError: a teacher cannot be had; the message names key and file.
    """
    teachers = {}
    for own in teacher_settings(cfg):
        kind = TEACHER_REGISTRY.get(own.type)
        given: dict[str, Any] = {"name": own.name, "cfg": cfg, "student": student}
        wanted = parameters_of(kind)
        teachers[own.name] = kind(
            **{key: value for key, value in given.items() if key in wanted}, **own.arguments
        )
    return teachers


def build_distiller(cfg: CfgNode, student: nn.Module, teachers: Mapping[str, Teacher]) -> Distiller:
    """The student with the losses of ``DISTILLATION.LOSSES``.

    Raises:
        KdpsError: a loss does not fit student and teacher; the message names its key.
    """
    shape = network_shape(student)
    settings = loss_settings(cfg)
    windows = window_range(cfg)
    losses = {}
    for own in settings:
        teacher = teachers[own.teacher]
        try:
            losses[own.name] = DISTILL_LOSS_REGISTRY.get(own.type)(
                student=shape, teacher=teacher.shape, **own.arguments
            ).to(student.device)
        except KdpsError as error:
            raise KdpsError(f"{own.key}.{error}") from error
        if losses[own.name].needs_windows and teacher.windows not in (None, windows):
            raise KdpsError(
                f"INPUT.PERSON_CROPS: {own.key} looks at windows of SIZE, PADDING and ALPHA "
                f"{windows}, teacher {teacher.name!r} was trained with {teacher.windows}"
            )
        _check_identities(own, losses[own.name], shape.num_pids, teacher, cfg)
    return Distiller(
        student,
        losses,
        {own.name: own.teacher for own in settings},
        {own.name: own.weight for own in settings},
        WindowSampler(windows, cfg.DISTILLATION.WINDOWS),
    )


def _check_identities(
    own: PartSettings, loss: DistillLoss, num_pids: int, teacher: Teacher, cfg: CfgNode
) -> None:
    """Raise a KdpsError if a loss compares identities that do not correspond."""
    if not loss.needs_identities:
        return
    if teacher.identities != tuple(cfg.DATASETS.TRAIN):
        raise KdpsError(
            f"{own.key}: {own.type} compares identities, but teacher {teacher.name!r} knows those "
            f"of {', '.join(teacher.identities)}, the student those of "
            f"{', '.join(cfg.DATASETS.TRAIN)}"
        )
    if not teacher.knows_identities:
        raise KdpsError(
            f"{own.key}: {own.type} compares identities, but the checkpoint of teacher "
            f"{teacher.name!r} has an empty lookup table"
        )
    if teacher.shape.num_pids != num_pids:
        raise KdpsError(
            f"{own.key}: {own.type} compares identities, but the lookup table of teacher "
            f"{teacher.name!r} has {teacher.shape.num_pids} rows, the student's {num_pids}"
        )
