# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What ``DISTILLATION`` of a config says, checked."""

from __future__ import annotations

import ast
import contextlib
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry

from kdps.distillation.losses.base import DISTILL_LOSS_REGISTRY
from kdps.distillation.schedule import SCHEDULES
from kdps.distillation.teacher import TEACHER_REGISTRY
from kdps.errors import KdpsError

# Keyword arguments that whoever builds the class gives, not the config.
_GIVEN = {"self", "name", "cfg", "student", "teacher"}


@dataclass(frozen=True)
class PartSettings:
    """One teacher or one loss.

    Attributes:
        name: in ``DISTILLATION.TEACHERS`` or ``LOSSES``; its node is ``DISTILLATION.<name>``.
        type: name of its class, ``TYPE`` of the node or, without one, the name itself.
        arguments: keyword arguments of the class, from the other keys of the node.
        teacher: of a loss, the teacher it compares with.
        weight: of a loss.
    """

    name: str
    type: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    teacher: str = ""
    weight: float = 1.0

    @property
    def key(self) -> str:
        """What the keys of its node begin with."""
        return f"DISTILLATION.{self.name}"


def teacher_settings(cfg: CfgNode) -> list[PartSettings]:
    """The teachers of a config, in its order.

    Raises:
        KdpsError: a node is missing or has a key that its class does not know.
    """
    return [
        PartSettings(name, *_part(cfg, "TEACHERS", name, TEACHER_REGISTRY, ()))
        for name in _names(cfg, "TEACHERS")
    ]


def loss_settings(cfg: CfgNode) -> list[PartSettings]:
    """The losses of a config, in its order.

    Raises:
        KdpsError: as :func:`teacher_settings`; a weight is negative, a teacher is unknown.
    """
    found = []
    teachers = _names(cfg, "TEACHERS")
    for name in _names(cfg, "LOSSES"):
        kind, arguments = _part(cfg, "LOSSES", name, DISTILL_LOSS_REGISTRY, ("TEACHER", "WEIGHT"))
        node = cfg.DISTILLATION.get(name, {})
        # The only teacher need not be named.
        teacher = node.get("TEACHER", teachers[0] if len(teachers) == 1 else "")
        if teacher not in teachers:
            raise KdpsError(
                f"DISTILLATION.{name}.TEACHER: {teacher!r} is none of DISTILLATION.TEACHERS "
                f"({', '.join(teachers) or 'empty'})"
            )
        weight = _as_default(node.get("WEIGHT", 1.0), 1.0, f"DISTILLATION.{name}.WEIGHT")
        if not (math.isfinite(weight) and weight >= 0):
            raise KdpsError(f"DISTILLATION.{name}.WEIGHT: must be 0 or more, not {weight!r}")
        found.append(PartSettings(name, kind, arguments, teacher, float(weight)))
    return found


def check_distillation(cfg: CfgNode) -> None:
    """Check all keys of ``DISTILLATION`` before anything is built.

    Raises:
        KdpsError: the first fault; the message names its key.
    """
    node = cfg.DISTILLATION
    teachers, losses = teacher_settings(cfg), loss_settings(cfg)
    if not losses:
        raise KdpsError("DISTILLATION.LOSSES: empty, although DISTILLATION.ENABLED is True")
    idle = [own.name for own in teachers if own.name not in {loss.teacher for loss in losses}]
    if idle:
        raise KdpsError(f"DISTILLATION.TEACHERS: no loss compares with {idle[0]!r}")
    if node.SCHEDULE not in SCHEDULES:
        known = ", ".join(SCHEDULES)
        raise KdpsError(f"DISTILLATION.SCHEDULE: unknown value {node.SCHEDULE!r}; known: {known}")
    if node.WINDOWS < 0:
        raise KdpsError(f"DISTILLATION.WINDOWS: must be 0 (any) or more, not {node.WINDOWS}")
    if node.WARMUP_ITERS < 0:
        raise KdpsError(f"DISTILLATION.WARMUP_ITERS: must be 0 or more, not {node.WARMUP_ITERS}")
    if node.STOP_ITER != -1 and node.STOP_ITER <= node.WARMUP_ITERS:
        raise KdpsError(
            f"DISTILLATION.STOP_ITER: {node.STOP_ITER} must lie after WARMUP_ITERS "
            f"({node.WARMUP_ITERS}), or be -1 for the end of the training"
        )
    known = {"ENABLED", "TEACHERS", "LOSSES", "SCHEDULE", "WARMUP_ITERS", "STOP_ITER", "WINDOWS"}
    known |= {own.name for own in [*teachers, *losses]}
    for key, value in node.items():
        # The node of a part that is left out may stay, but a misspelt one changes nothing.
        if key not in known and not _is_part(key, value):
            raise KdpsError(f"DISTILLATION.{key}: unknown key; known: {', '.join(sorted(known))}")


def _is_part(name: str, node: Any) -> bool:
    kind = node.get("TYPE", name) if isinstance(node, CfgNode) else name
    return kind in TEACHER_REGISTRY or kind in DISTILL_LOSS_REGISTRY


def _names(cfg: CfgNode, key: str) -> list[str]:
    names = cfg.DISTILLATION[key]
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise KdpsError(f"DISTILLATION.{key}: must be a tuple of names, not {names!r}")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise KdpsError(f"DISTILLATION.{key}: {twice[0]!r} is there twice; TYPE names the class")
    return list(names)


def _part(
    cfg: CfgNode, group: str, name: str, registry: Registry, more: tuple[str, ...]
) -> tuple[str, dict[str, Any]]:
    """Class name and arguments of a node."""
    node = cfg.DISTILLATION.get(name, {})
    if not isinstance(node, (CfgNode, dict)):
        raise KdpsError(f"DISTILLATION.{name}: must be a node, not {node!r}")
    kind = node.get("TYPE", name)
    if kind not in registry:
        known = ", ".join(sorted(own for own, _ in registry))
        key = f"DISTILLATION.{name}.TYPE" if "TYPE" in node else f"DISTILLATION.{group}"
        raise KdpsError(f"{key}: unknown value {kind!r}; known: {known}")
    parameters = parameters_of(registry.get(kind))
    known_keys = {own.upper().rstrip("_") for own in parameters if own not in _GIVEN}
    by_key = {own.upper().rstrip("_"): own for own in parameters}
    arguments = {}
    for key, value in node.items():
        if key in ("TYPE", *more):
            continue
        if key not in known_keys:
            known = ", ".join(sorted({"TYPE", *more, *known_keys}))
            raise KdpsError(f"DISTILLATION.{name}.{key}: unknown key; {kind} has {known}")
        argument = parameters[by_key[key]]
        arguments[argument.name] = _as_default(
            value, argument.default, f"DISTILLATION.{name}.{key}"
        )
    return kind, arguments


def parameters_of(kind: type) -> dict[str, inspect.Parameter]:
    """Arguments of a class, with those that it hands on to what it is derived from."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        own = inspect.signature(base.__init__).parameters
        found = {**own, **found}
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in own.values()):
            break
    return {
        name: own for name, own in found.items() if own.kind is not inspect.Parameter.VAR_KEYWORD
    }


def _as_default(value: Any, default: Any, key: str) -> Any:
    """The value in the type of the default, where the two can be taken for each other."""
    if isinstance(value, str) and not isinstance(default, str):
        # A new node comes as YAML reads it: ("p3",) and 1e-3 are words there.
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
    if isinstance(value, list):
        value = tuple(value)
    if default is inspect.Parameter.empty or default is None or value is None:
        return value
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise KdpsError(
            f"{key}: must be of type {type(default).__name__}, not {type(value).__name__} "
            f"({value!r})"
        )
    return value
