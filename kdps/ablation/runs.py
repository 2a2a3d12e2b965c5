# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Training what a plan asks for, and keeping what each run reached."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdps.ablation.plan import Plan, Run
from kdps.config.files import config_files
from kdps.engine.metrics_file import training_time
from kdps.errors import KdpsError
from kdps.evaluation.results_file import write_json
from kdps.evaluation.results_reader import read_queries, read_results
from kdps.utils.environment import git_commit, machine, versions

logger = logging.getLogger(__name__)

# The search that the table is about.
_SEARCH = "person_search"


@dataclass(frozen=True)
class Job:
    """One training of a run.

    Attributes:
        run: which.
        seed: its seed.
        key: digest of what decides the result.
        folder: OUTPUT_DIR.
        result: file of what it reached.
        options: all keys and values, with those of seed, folder and teachers.
    """

    run: Run
    seed: int
    key: str
    folder: Path
    result: Path
    options: tuple[str, ...]

    def is_done(self) -> bool:
        """Whether there is a result by the same configs, options and teachers."""
        return self.result.is_file() and json.loads(self.result.read_text()).get("key") == self.key


def jobs_of(plan: Plan, output: Path, results: Path) -> list[Job]:
    """All trainings of a plan: the first seed of every run, then the second, and so on.

    An ablation that ends early then leaves whole columns.

    Args:
        plan: the plan.
        output: folder of the trainings.
        results: folder of the results files.
    """
    found: dict[tuple[str, int], Job] = {}
    for run in plan.runs:
        for seed in run.seeds:
            teachers = {
                name: found[own, seed if (own, seed) in found else plan.run(own).seeds[0]]
                for name, own in run.teachers.items()
            }
            found[run.name, seed] = _job(run, seed, teachers, output, results)
    order = [run.name for run in plan.runs]

    def place(job: Job) -> tuple[int, int]:
        return job.run.seeds.index(job.seed), order.index(job.run.name)

    return sorted(found.values(), key=place)


def run_job(job: Job, script: Sequence[str] = ("-m", "kdps.train_net")) -> int:
    """Train, or go on training, and write the result; returns the exit code of the training.

    Args:
        job: what to train.
        script: what Python runs: a training script of one's own, or the bundled one.
    """
    command = [sys.executable, *script, "--config-file", job.run.config, "--resume", *job.options]
    key_file = job.folder / "ablation_key"
    if job.folder.is_dir() and not (key_file.is_file() and key_file.read_text() == job.key):
        raise KdpsError(
            f"{job.folder}: holds a run by other configs or options; remove it, or give another "
            "--output"
        )
    job.folder.mkdir(parents=True, exist_ok=True)
    key_file.write_text(job.key)
    code = subprocess.call(command)
    if code == 0:
        job.result.parent.mkdir(parents=True, exist_ok=True)
        write_json(_outcome(job), job.result)
    return code


def _job(run: Run, seed: int, teachers: Mapping[str, Job], output: Path, results: Path) -> Job:
    name = f"{run.name}_s{seed}"
    digest = hashlib.sha256("\n".join([*run.options, str(seed)]).encode())
    for path in config_files(run.config):
        digest.update(path.read_bytes())
    options = [*run.options, "SEED", str(seed), "OUTPUT_DIR", str(output / name)]
    for key, teacher in sorted(teachers.items()):
        digest.update(f"{key} {teacher.key}".encode())
        weights = teacher.folder / "model_final.pth"
        options += [f"DISTILLATION.{key}.WEIGHTS", str(weights)]
    folder, result = output / name, results / f"{name}.json"
    return Job(run, seed, digest.hexdigest(), folder, result, tuple(options))


def _outcome(job: Job) -> dict[str, Any]:
    """What is kept of a training: AP and first rank of each query, and how it came about."""
    path = job.folder / "inference" / "person_search_results.json"
    file = read_results(path)
    queries = read_queries(file, _SEARCH)
    scores = json.loads(path.read_text())
    iterations, seconds = training_time(job.folder / "metrics.json")
    return {
        "key": job.key,
        "run": job.run.name,
        "seed": job.seed,
        "config": job.run.config,
        "options": list(job.options),
        "dataset": file.dataset,
        "mAP": scores[_SEARCH]["mAP"],
        "top1": scores[_SEARCH]["top1"],
        "recall": scores["detection"]["recall"],
        "AP": scores["detection"]["AP"],
        "query_AP": [round(float(ap), 4) for ap in queries.ap],
        "first_rank": queries.first_rank.tolist(),
        "iterations": iterations,
        "seconds": round(seconds, 1),
        "commit": git_commit(),
        "machine": machine(),
        "versions": versions(),
    }
