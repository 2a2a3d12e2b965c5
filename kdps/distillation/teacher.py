# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What every teacher is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from detectron2.structures import Boxes
from detectron2.utils.registry import Registry

from kdps.data.crops import WindowRange
from kdps.distillation.losses.base import NetworkShape
from kdps.structures.distill_outputs import DistillOutputs, PersonOutputs, Places

TEACHER_REGISTRY = Registry("TEACHER")
TEACHER_REGISTRY.__doc__ = """
Teachers, subclasses of :class:`Teacher`. The name of one in ``DISTILLATION.TEACHERS`` has a node
``DISTILLATION.<NAME>``, whose keys, in lower case, are the keyword arguments of the class.
"""


class TeacherOutputs:
    """What a teacher saw in a batch; people are described where a student asks for them."""

    def describe(self, student: DistillOutputs) -> DistillOutputs:
        """What the teacher says, stage by stage, at the places of a student.

        A stage is only described when a loss looks at it, and then once. Nothing has a gradient.
        """
        raise NotImplementedError

    def wait(self) -> None:
        """Let the current CUDA stream wait until the teacher has seen the batch."""


class Teacher:
    """A callable from the student's batch to :class:`TeacherOutputs`.

    It is no module of the student: in no state dict, no optimizer, no evaluation.

    Attributes:
        name: in ``DISTILLATION.TEACHERS``.
        shape: what losses may know of it beforehand.
        identities: names of the training sets whose identities its lookup tables are of.
        windows: the range of the windows that it was trained with; None where it has none.
        knows_identities: whether some row of its tables holds something, or will.
    """

    name: str
    shape: NetworkShape
    identities: tuple[str, ...]
    knows_identities: bool = True
    windows: WindowRange | None = None

    def __call__(self, batched_inputs: list[dict[str, Any]]) -> TeacherOutputs:
        """See a batch, as the student's mapper made it, without gradients."""
        raise NotImplementedError

    def start(self) -> None:
        """Called before the first step of a new training."""

    def after_step(self) -> None:
        """Called after each step of the student."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs of it; a frozen teacher has nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""


class DescribedPeople(Mapping[str, PersonOutputs]):
    """Stages of a student as a teacher describes them, each when it is first looked at."""

    def __init__(
        self,
        student: Mapping[str, PersonOutputs],
        describe: Callable[[str, PersonOutputs], PersonOutputs],
    ) -> None:
        """
        Args:
            student: what the student says, by stage.
            describe: from the name of a stage and what the student says there to what the teacher
                says at the same places.
        """
        self._student = student
        self._describe = describe
        self._described: dict[str, PersonOutputs] = {}

    def __getitem__(self, stage: str) -> PersonOutputs:
        if stage not in self._described:
            self._described[stage] = self._describe(stage, self._student[stage])
        return self._described[stage]

    def __iter__(self) -> Iterator[str]:
        return iter(self._student)

    def __len__(self) -> int:
        return len(self._student)


def scale_places(places: Places, factors: list[tuple[float, float]]) -> Places:
    """Places in an image of another size; factors of each image along x and y."""
    boxes = [scale_boxes(own, factor) for own, factor in zip(places.boxes, factors, strict=True)]
    if places.points is None:
        return Places(boxes)
    points = [
        own * own.new_tensor(factor) for own, factor in zip(places.points, factors, strict=True)
    ]
    return Places(boxes, points)


def scale_boxes(boxes: Boxes, factor: tuple[float, float]) -> Boxes:
    """Boxes in an image that is so many times as wide and high."""
    return Boxes(boxes.tensor * boxes.tensor.new_tensor([*factor, *factor]))
