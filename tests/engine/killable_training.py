# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Runs trainings that kill themselves, each in a process of its own.

Usage: killable_training.py JOBS.json TINY_SET_FOLDER. A job is ``{"flags": [...], "kill": ...}``
with the flags of train_net.py and the moment of death, or null:

* ``{"iteration": i, "delay": s}``: s seconds after iteration i has begun;
* ``{"file": name, "stage": stage}``: while this file is written, at the stage ``half`` (part of the
  temporary file is on disk), ``renaming`` (all of it) or ``renamed`` (the file is in place).

Prints the list of the jobs' exit statuses; minus the signal's number for a killed one.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import torch

from kdps import train_net
from kdps.checkpoint import checkpointer
from kdps.engine.setup import argument_parser
from kdps.engine.trainer import PersonSearchTrainer
from kdps.utils.testing_set import register_tiny_sets


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def trainer_that_dies(iteration: int, delay: float) -> type[PersonSearchTrainer]:
    class DyingTrainer(PersonSearchTrainer):
        def run_step(self) -> None:
            if self.iter == iteration:
                threading.Timer(delay, die).start()
            super().run_step()

    return DyingTrainer


def die_writing(file: str, stage: str) -> None:
    save, replace = torch.save, os.replace

    def dying_save(data: Any, stream: Any) -> None:
        if Path(stream.name).name != file + ".tmp" or stage != "half":
            save(data, stream)
            return
        whole = io.BytesIO()
        save(data, whole)
        stream.write(whole.getvalue()[: whole.tell() // 2])
        stream.flush()
        die()

    def dying_replace(source: Path, target: Path) -> None:
        if Path(target).name == file and stage == "renaming":
            die()
        replace(source, target)
        if Path(target).name == file and stage == "renamed":
            die()

    checkpointer.torch.save = dying_save
    os.replace = dying_replace


def train(job: dict[str, Any]) -> None:
    trainer_class = PersonSearchTrainer
    kill = job["kill"]
    if kill is not None and "iteration" in kill:
        trainer_class = trainer_that_dies(**kill)
    elif kill is not None:
        die_writing(**kill)
    train_net.run(argument_parser().parse_args(job["flags"]), trainer_class)


def run_in_a_fork(job: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            train(job)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    register_tiny_sets(Path(sys.argv[2]))
    jobs = json.loads(Path(sys.argv[1]).read_text())
    statuses = []
    for job in jobs:
        statuses.append(run_in_a_fork(job))
    sys.stdout.write("\n" + json.dumps(statuses) + "\n")


if __name__ == "__main__":
    main()
