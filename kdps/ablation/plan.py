# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Which runs an ablation consists of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from kdps.data.datasets.files import read_text
from kdps.errors import KdpsError, one_line

_NAME = re.compile(r"[\w+.-]+")
_RUN_KEYS = {"label", "config", "options", "seeds", "teachers", "weights"}
# In an option, the folder of another run: "{student}/inference/detections.npz".
_FOLDER = re.compile(r"\{([\w+.-]+)\}")
_KEYS = {"title", "common", "seeds", "baseline", "upper", "runs", "quick"}


@dataclass(frozen=True)
class Run:
    """One training, or the evaluation of one, for each of several seeds.

    Where a run needs another, it is that of the same seed, or of the first seed of the other where
    that has not this one.

    Attributes:
        name: of its folders and files.
        label: what the table calls it.
        config: file for ``train_net.py``.
        options: keys and values on top of the file; "{name}" in a value is the folder of the run of
            that name.
        seeds: one training for each.
        teachers: for each name in ``DISTILLATION.TEACHERS`` the run whose final weights are the
            teacher's.
        weights: the run whose final weights are evaluated by this config; "" trains.
    """

    name: str
    label: str
    config: str
    options: tuple[str, ...]
    seeds: tuple[int, ...]
    teachers: Mapping[str, str]
    weights: str = ""

    def needs(self) -> set[str]:
        """Names of the runs that have to be done before."""
        folders = {name for option in self.options for name in _FOLDER.findall(option)}
        return folders | set(self.teachers.values()) | ({self.weights} - {""})

    def filled(self, folders: Mapping[str, Path]) -> tuple[str, ...]:
        """The options with the folders of the runs that they name."""
        return tuple(
            _FOLDER.sub(lambda match: str(folders[match.group(1)]), option)
            for option in self.options
        )


@dataclass(frozen=True)
class Plan:
    """An ablation.

    Attributes:
        title: of the table.
        baseline: run that every other is compared with.
        upper: run whose lead over the baseline is the gap that others close; "" for none.
        runs: in the order of the table. Teachers come before those that learn from them.
    """

    title: str
    baseline: str
    upper: str
    runs: tuple[Run, ...]

    def run(self, name: str) -> Run:
        """The run of a name."""
        return next(run for run in self.runs if run.name == name)


def read_plan(path: str | Path, *, quick: bool = False) -> Plan:
    """Read a plan from YAML.

    Args:
        path: the file. ``title``, ``baseline``, ``upper`` and ``runs`` are as in :class:`Plan`;
            ``seeds`` is the default of all runs, ``common`` are options of all of them. ``quick``
            may hold other ``common`` options, put after those, ``seeds`` and names of ``runs``.
        quick: apply what stands under ``quick``.

    Raises:
        KdpsError: the file is missing or no plan; the message names file and field.
    """
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise KdpsError(f"{path}: no valid YAML: {one_line(error)}") from error
    content = _mapping(content, f"{path}", _KEYS)
    common = _options(content.get("common", []), f"{path}: common")
    seeds = _seeds(content.get("seeds", [0]), f"{path}: seeds")
    runs = []
    for name, node in _mapping(content.get("runs", {}), f"{path}: runs").items():
        runs.append(_run(name, node, common, seeds, f"{path}: runs.{name}"))
    if quick:
        runs = _quick(runs, content.get("quick"), f"{path}: quick")
    plan = Plan(
        title=str(content.get("title", Path(path).stem)),
        baseline=str(content.get("baseline", "")),
        upper=str(content.get("upper", "")),
        runs=tuple(runs),
    )
    _check(plan, path)
    return plan


def _run(name: Any, node: Any, common: tuple[str, ...], seeds: tuple[int, ...], where: str) -> Run:
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise KdpsError(f"{where}: a name is made of letters, digits and +.-_")
    node = _mapping(node, where, _RUN_KEYS)
    config = node.get("config")
    if not (isinstance(config, str) and Path(config).is_file()):
        raise KdpsError(f"{where}.config: no such file: {config}")
    teachers = _mapping(node.get("teachers", {}), f"{where}.teachers")
    return Run(
        name=name,
        label=str(node.get("label", name)),
        config=config,
        options=common + _options(node.get("options", []), f"{where}.options"),
        seeds=_seeds(node.get("seeds", list(seeds)), f"{where}.seeds"),
        teachers={str(key): str(value) for key, value in teachers.items()},
        weights=str(node.get("weights", "")),
    )


def _quick(runs: list[Run], node: Any, where: str) -> list[Run]:
    node = _mapping(node, where, {"common", "seeds", "runs"})
    common = _options(node.get("common", []), f"{where}.common")
    seeds = _seeds(node["seeds"], f"{where}.seeds") if "seeds" in node else None
    kept = node.get("runs", [run.name for run in runs])
    unknown = [name for name in kept if name not in {run.name for run in runs}]
    if unknown:
        raise KdpsError(f"{where}.runs: {unknown[0]!r} is none of the runs")
    return [
        replace(run, options=run.options + common, seeds=seeds or run.seeds)
        for run in runs
        if run.name in kept
    ]


def _check(plan: Plan, path: str | Path) -> None:
    names = [run.name for run in plan.runs]
    if plan.baseline not in names:
        raise KdpsError(f"{path}: baseline: {plan.baseline!r} is none of the runs")
    if plan.upper and plan.upper not in names:
        raise KdpsError(f"{path}: upper: {plan.upper!r} is none of the runs")
    for number, run in enumerate(plan.runs):
        for kind, others in (
            ("teachers", run.teachers.values()),
            ("weights", [run.weights] if run.weights else []),
            ("options", sorted(run.needs())),
        ):
            for other in others:
                if other not in names[:number]:
                    raise KdpsError(
                        f"{path}: runs.{run.name}.{kind}: {other!r} is none of the runs before it"
                    )
        if run.weights and run.teachers:
            raise KdpsError(f"{path}: runs.{run.name}.weights: what is evaluated has no teachers")


def _mapping(value: Any, where: str, known: set[str] | None = None) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise KdpsError(f"{where}: must be a mapping, not {value!r}")
    unknown = [key for key in value if known is not None and key not in known]
    if unknown:
        raise KdpsError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}")
    return value


def _options(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) % 2:
        raise KdpsError(f"{where}: must be a list of keys and values, not {value!r}")
    return tuple(map(str, value))


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(x) is int for x in value):
        raise KdpsError(f"{where}: must be a list of whole numbers, not {value!r}")
    return tuple(value)
