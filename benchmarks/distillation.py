#!/usr/bin/env python3
# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What a step of distillation costs beyond the student's own step and the teachers' forward passes.

    python benchmarks/distillation.py \
        --config-file projects/GDPS/configs/CUHK-SYSU/gdps_seqnet_R_50_from_R_101.yaml \
        --size 900 1200 MODEL.DEVICE cuda
    python benchmarks/distillation.py \
        --config-file projects/DKD/configs/CUHK-SYSU/dkd_R_50_C4.yaml \
        --variant cached DISTILLATION.crop.CACHE /tmp/cache DISTILLATION.WINDOWS 1

Weights are random and images are noise with people at random places; neither decides the time. All
take turns, so that a noisy machine slows all; compare the ratios of a run. The batch is always the
same one, so that a cache knows all of it after the first turn; with FSA, if windows have one place.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from measure import conditions, seconds

import kdps.data  # noqa: F401  registers the sets
import kdps.modeling  # noqa: F401  registers the architectures
from kdps.distillation import Distiller, build_distiller, build_teachers
from kdps.distillation.teacher import Teacher, TeacherOutputs
from kdps.engine.optimizer import build_clipped_optimizer
from kdps.engine.setup import load_cfg
from kdps.structures.distill_outputs import DistillOutputs, PersonOutputs
from kdps.utils.testing import make_training_batch


def main() -> None:
    args = _parse()
    warnings.filterwarnings("ignore")
    torch.manual_seed(args.seed)
    variants = {"": [], **{label: opts for label, *opts in args.variant}}
    sides: dict[str, Callable[[], Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for label, opts in variants.items():
            cfg = load_cfg(args.config_file, [*args.opts, *opts])
            cfg.MODEL.REID_HEAD.NUM_PIDS, cfg.MODEL.REID_HEAD.QUEUE_SIZE = args.pids, 500
            own = _sides(cfg, args, Path(folder))
            sides.update({f"{name} {label}".strip(): work for name, work in own.items()})
    # Without distillation all variants are the same.
    alone = {f"student {label}" for label in variants if label}
    times: dict[str, list[float]] = {name: [] for name in sides if name not in alone}
    for _ in range(args.repeat + 1):
        for name, values in times.items():
            values.append(seconds(sides[name], cfg.MODEL.DEVICE))
    # The first turn warms up.
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    found = {
        "config": args.config_file,
        "options": args.opts,
        "variants": variants,
        "image": list(args.size),
        "batch": args.batch_size,
        "people": args.people,
        "seconds": medians,
        "parts_of_a_step_of_the_student": {
            label or "as configured": _parts(medians, label) for label in variants
        },
        "threads": torch.get_num_threads(),
        **conditions(),
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def _parts(medians: dict[str, float], label: str) -> dict[str, float]:
    teacher, distilled = (medians[f"{side} {label}".strip()] for side in ("teacher", "distilled"))
    student = medians["student"]
    return {
        "teacher": teacher / student,
        "all of distillation": (distilled - student) / student,
        "beyond the teacher": (distilled - student - teacher) / student,
    }


def _sides(cfg: CfgNode, args: argparse.Namespace, folder: Path) -> dict[str, Callable[[], Any]]:
    """What takes turns for a config: steps of the student alone and distilled, and the teachers."""
    student = build_model(cfg).train()
    _write_teachers(cfg, folder)
    teachers = build_teachers(cfg, student)
    distiller = build_distiller(cfg, student, teachers).train()
    batch = _batch(cfg, args)
    asked = _asked(distiller, teachers, batch)
    with EventStorage():
        windows = distiller.windows and [own.to(student.device) for own in distiller.windows(batch)]
        _, seen = student.forward_distill(batch, windows)

    @torch.no_grad()
    def see() -> None:
        for name, teacher in teachers.items():
            described = teacher(batch).describe(seen)
            for kind, stage in asked[name]:
                getattr(described, kind)[stage]

    optimizer = build_clipped_optimizer(cfg, distiller)
    return {
        "student": lambda: _step(lambda: student(batch), optimizer),
        "teacher": see,
        "distilled": lambda: _step(
            lambda: distiller(batch, teachers={n: t(batch) for n, t in teachers.items()}), optimizer
        ),
    }


def _batch(cfg: CfgNode, args: argparse.Namespace) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(args.seed)
    shape = (args.batch_size, args.people)
    pids = torch.randint(args.pids, shape, generator=generator).tolist()
    batch = make_training_batch(pids, *args.size, seed=args.seed)
    for record in batch:
        record["to_original"] = ((1.0, 0.0), (1.0, 0.0))
        if cfg.INPUT.KEEP_ORIGINAL:
            record["original"] = record["image"].to(torch.uint8)
            # Any file that is there: a cache knows images by their files.
            record["file_name"] = f"{__file__}"
    return batch


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="a recipe")
    parser.add_argument(
        "--variant",
        nargs="+",
        action="append",
        default=[],
        metavar="LABEL KEY VALUE",
        help="time the recipe with these options as well; may be given several times",
    )
    parser.add_argument("--size", type=int, nargs=2, default=(900, 1200), metavar=("H", "W"))
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--people", type=int, default=8, help="in each image")
    parser.add_argument("--pids", type=int, default=5532, help="rows of the lookup tables")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="on top of the config")
    return parser.parse_args()


def _write_teachers(cfg: CfgNode, folder: Path) -> None:
    """Put random weights in the place of those of each teacher."""
    for name in cfg.DISTILLATION.TEACHERS:
        node = cfg.DISTILLATION[name]
        own = load_cfg(node.CONFIG_FILE, list(node.get("OPTS", ())))
        own.MODEL.DEVICE = "cpu"
        own.MODEL.REID_HEAD.NUM_PIDS = cfg.MODEL.REID_HEAD.NUM_PIDS
        own.MODEL.REID_HEAD.QUEUE_SIZE = 500
        node.WEIGHTS = str(folder / f"{name}.pth")
        # The same for all variants, as a cache is of certain weights.
        if not Path(node.WEIGHTS).exists():
            teacher = build_model(own)
            for oim in getattr(teacher, "memories", dict)().values():
                # An empty lookup table is refused as teacher of identities.
                torch.nn.init.normal_(oim.memory.table)
            torch.save({"model": teacher.state_dict()}, node.WEIGHTS)


class _Noted(Mapping[str, PersonOutputs]):
    """What a teacher says of people, and a note of what was asked."""

    def __init__(
        self, described: Mapping[str, PersonOutputs], kind: str, asked: set[tuple[str, str]]
    ) -> None:
        self._described, self._kind, self._asked = described, kind, asked

    def __getitem__(self, stage: str) -> PersonOutputs:
        self._asked.add((self._kind, stage))
        return self._described[stage]

    def __iter__(self) -> Iterator[str]:
        return iter(self._described)

    def __len__(self) -> int:
        return len(self._described)


class _NotedOutputs(TeacherOutputs):
    def __init__(self, outputs: TeacherOutputs, asked: set[tuple[str, str]]) -> None:
        self._outputs, self._asked = outputs, asked

    def describe(self, student: DistillOutputs) -> DistillOutputs:
        found = self._outputs.describe(student)
        kinds = ("people", "windows")
        noted = {kind: _Noted(getattr(found, kind), kind, self._asked) for kind in kinds}
        return replace(found, **noted)


def _asked(
    distiller: Distiller, teachers: Mapping[str, Teacher], batch: list[dict[str, Any]]
) -> dict[str, set[tuple[str, str]]]:
    """Which stages, of people or of windows, losses ask each teacher about."""
    asked: dict[str, set[tuple[str, str]]] = {name: set() for name in teachers}
    with EventStorage():
        noted = {name: _NotedOutputs(own(batch), asked[name]) for name, own in teachers.items()}
        distiller(batch, teachers=noted)
    return asked


def _step(losses: Callable[[], dict[str, torch.Tensor]], optimizer: torch.optim.Optimizer) -> None:
    with EventStorage():
        total = sum(losses().values())
    optimizer.zero_grad()
    total.backward()
    # The weights stay as they are: random networks would soon leave all numbers.
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()


if __name__ == "__main__":
    main()
