#!/usr/bin/env python3
# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What a step of distillation costs beyond the student's own step and the teacher's forward pass.

    python benchmarks/distillation.py \
        --config-file projects/GDPS/configs/CUHK-SYSU/gdps_seqnet_R_50_from_R_101.yaml \
        --size 900 1200 MODEL.DEVICE cuda

Weights are random and images are noise with people at random places; neither decides the time. The
three take turns, so that a noisy machine slows all; compare the ratios of a run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
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
from kdps.engine.optimizer import build_clipped_optimizer
from kdps.engine.setup import load_cfg
from kdps.utils.testing import make_training_batch


def main() -> None:
    args = _parse()
    warnings.filterwarnings("ignore")
    torch.manual_seed(args.seed)
    cfg = load_cfg(args.config_file, args.opts)
    cfg.MODEL.REID_HEAD.NUM_PIDS, cfg.MODEL.REID_HEAD.QUEUE_SIZE = args.pids, 500
    student = build_model(cfg).train()
    with tempfile.TemporaryDirectory() as folder:
        _write_teacher(cfg, Path(folder))
        teachers = build_teachers(cfg, student)
    distiller = build_distiller(cfg, student, teachers).train()
    pids = [torch.randint(args.pids, (args.people,)).tolist() for _ in range(args.batch_size)]
    batch = make_training_batch(pids, *args.size, seed=args.seed)

    looked_at = _stages(distiller, teachers, batch)
    with EventStorage():
        _, seen = student.forward_distill(batch)

    @torch.no_grad()
    def see() -> None:
        for name, teacher in teachers.items():
            people = teacher(batch).describe(seen).people
            for stage in looked_at[name]:
                people[stage]

    optimizer = build_clipped_optimizer(cfg, distiller)
    sides: dict[str, Callable[[], Any]] = {
        "student": lambda: _step(lambda: student(batch), optimizer),
        "teacher": see,
        "distilled": lambda: _step(
            lambda: distiller(batch, teachers={n: t(batch) for n, t in teachers.items()}), optimizer
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.repeat + 1):
        for name, work in sides.items():
            times[name].append(seconds(work, cfg.MODEL.DEVICE))
    # The first turn warms up.
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    beyond = medians["distilled"] - medians["student"] - medians["teacher"]
    found = {
        "config": args.config_file,
        "options": args.opts,
        "image": list(args.size),
        "batch": args.batch_size,
        "seconds": medians,
        "beyond_the_teacher_of_a_step": beyond / medians["student"],
        "threads": torch.get_num_threads(),
        **conditions(),
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="a recipe with scene teachers")
    parser.add_argument("--size", type=int, nargs=2, default=(900, 1200), metavar=("H", "W"))
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--people", type=int, default=8, help="in each image")
    parser.add_argument("--pids", type=int, default=5532, help="rows of the lookup tables")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="on top of the config")
    return parser.parse_args()


def _write_teacher(cfg: CfgNode, folder: Path) -> None:
    """Put random weights in the place of those of each teacher."""
    for name in cfg.DISTILLATION.TEACHERS:
        node = cfg.DISTILLATION[name]
        own = load_cfg(node.CONFIG_FILE, list(node.get("OPTS", ())))
        own.MODEL.DEVICE = "cpu"
        own.MODEL.REID_HEAD.NUM_PIDS = cfg.MODEL.REID_HEAD.NUM_PIDS
        own.MODEL.REID_HEAD.QUEUE_SIZE = 500
        node.WEIGHTS = str(folder / f"{name}.pth")
        teacher = build_model(own)
        for oim in teacher.memories().values():
            # An empty lookup table is refused as teacher of identities.
            torch.nn.init.normal_(oim.memory.table)
        torch.save({"model": teacher.state_dict()}, node.WEIGHTS)


def _stages(distiller: Distiller, teachers: dict[str, Any], batch: list) -> dict[str, list[str]]:
    """The stages of the student that losses ask each teacher about."""
    asked: dict[str, list[str]] = {name: [] for name in teachers}
    originals = {}
    for name, teacher in teachers.items():
        describe = originals[name] = teacher.model.describe_people

        def note(
            images: Any, features: Any, stage: str, places: Any, name=name, describe=describe
        ) -> Any:
            asked[name].append(stage)
            return describe(images, features, stage, places)

        teacher.model.describe_people = note
    with EventStorage():
        distiller(batch, teachers={name: own(batch) for name, own in teachers.items()})
    for name, teacher in teachers.items():
        teacher.model.describe_people = originals[name]
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
