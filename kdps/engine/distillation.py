# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The hook that runs the teachers of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import nn
from torch.utils.hooks import RemovableHandle

from kdps.distillation.distiller import Distiller
from kdps.distillation.schedule import weight_factor
from kdps.distillation.teacher import Teacher, TeacherOutputs


class DistillationHook(HookBase):
    """Owns the teachers and hands what they see to the :class:`Distiller` in each training step.

    A trainer's hook never holds the batch, so this one watches the trained module being called.
    Only the calls of training steps count: evaluations and passes that collect statistics have no
    teacher. Register it before hooks that run such passes after a step.
    """

    def __init__(
        self,
        distiller: Distiller,
        teachers: Mapping[str, Teacher],
        *,
        warmup: int = 0,
        stop: int = -1,
        schedule: str = "constant",
    ) -> None:
        """
        Args:
            distiller: what is trained, not wrapped.
            teachers: by name.
            warmup, stop, schedule: see :func:`kdps.distillation.schedule.weight_factor`.
        """
        self._distiller = distiller
        self._teachers = dict(teachers)
        self._schedule = {"warmup": warmup, "stop": stop, "schedule": schedule}
        self._in_step = False
        self._handle: RemovableHandle | None = None

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        distiller: Distiller,
        teachers: Mapping[str, Teacher],
        scale: float = 1.0,
    ) -> DistillationHook:
        """The hook of ``DISTILLATION``.

        Args:
            cfg: the config.
            distiller, teachers: see above.
            scale: factor on all iterations, where ``SOLVER.REFERENCE_WORLD_SIZE`` has scaled those
                of the solver.
        """
        node = cfg.DISTILLATION
        return cls(
            distiller,
            teachers,
            warmup=round(node.WARMUP_ITERS * scale),
            stop=-1 if node.STOP_ITER < 0 else round(node.STOP_ITER * scale),
            schedule=node.SCHEDULE,
        )

    def state_dict(self) -> dict[str, Any]:
        return {name: teacher.state_dict() for name, teacher in self._teachers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, teacher in self._teachers.items():
            teacher.load_state_dict(state[name])

    def before_train(self) -> None:
        if self.trainer.start_iter == 0:
            for teacher in self._teachers.values():
                teacher.start()
        self._handle = self.trainer.model.register_forward_pre_hook(
            self._add_teachers, with_kwargs=True
        )

    def after_train(self) -> None:
        if self._handle is not None:
            self._handle.remove()

    def before_step(self) -> None:
        factor = weight_factor(self.trainer.iter, self.trainer.max_iter, **self._schedule)
        self._distiller.factor = factor
        self.trainer.storage.put_scalar("kd/weight", factor, smoothing_hint=False)
        self._in_step = True

    def after_step(self) -> None:
        self._in_step = False
        for teacher in self._teachers.values():
            teacher.after_step()

    def _add_teachers(
        self, module: nn.Module, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]] | None:
        # Where distillation counts nothing, the teachers may rest.
        if not self._in_step or not module.training or self._distiller.factor == 0.0:
            return None
        batch = args[0]
        seen: dict[str, TeacherOutputs] = {
            name: teacher(batch) for name, teacher in self._teachers.items()
        }
        return args, {**kwargs, "teachers": seen}


def student_of(model: nn.Module) -> nn.Module:
    """The person-search model itself, without what a training wraps it in."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model = model.module
    return model.student if isinstance(model, Distiller) else model
