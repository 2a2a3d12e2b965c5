# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Training what a plan asks for, and keeping what each run reached."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdps.ablation.digest import digest_of_run, digest_of_training
from kdps.ablation.plan import Plan, Run
from kdps.engine.metrics_file import training_time
from kdps.errors import KdpsError
from kdps.evaluation.results_file import write_json
from kdps.evaluation.results_reader import read_queries, read_results
from kdps.utils.environment import git_commit, machine, versions

logger = logging.getLogger(__name__)

# The search that the table is about.
_SEARCH = "person_search"
# File in the folder of a training with the key of its job.
_KEY_FILE = "ablation_key"


@dataclass(frozen=True)
class Job:
    """One training of a run.

    Attributes:
        run: which.
        seed: its seed.
        key: digest of the files and options that decide the result.
        folder: OUTPUT_DIR.
        result: file of what it reached.
        options: all keys and values, with those of seed, folder and teachers.
        needed: folders of the jobs that have to be done before.
    """

    run: Run
    seed: int
    key: str
    folder: Path
    result: Path
    options: tuple[str, ...]
    needed: tuple[Path, ...]

    @property
    def name(self) -> str:
        """Of run and seed, for people."""
        return f"{self.run.name}, seed {self.seed}"

    def is_done(self) -> bool:
        """Whether there is a result by the same files, options and teachers."""
        return self.result.is_file() and json.loads(self.result.read_text()).get("key") == self.key


def jobs_of(plan: Plan, output: Path, results: Path, script: Path | None = None) -> list[Job]:
    """All trainings of a plan: the first seed of every run, then the second, and so on.

    An ablation that ends early then leaves whole columns.

    Args:
        plan: the plan.
        output: folder of the trainings.
        results: folder of the results files.
        script: a training script of one's own.
    """
    found: dict[tuple[str, int], Job] = {}
    for run in plan.runs:
        # Once for all seeds: the files that it is of may be large.
        of_run = digest_of_run(run, script)
        for seed in run.seeds:
            needed = {
                own: found[own, seed if (own, seed) in found else plan.run(own).seeds[0]]
                for own in run.needs()
            }
            found[run.name, seed] = _job(run, seed, needed, output, results, of_run)
    order = [run.name for run in plan.runs]

    def place(job: Job) -> tuple[int, int]:
        return job.run.seeds.index(job.seed), order.index(job.run.name)

    return sorted(found.values(), key=place)


def check_folder(job: Job) -> None:
    """Raise a KdpsError if the folder of a job is that of another."""
    key_file = job.folder / _KEY_FILE
    if job.folder.is_dir() and not (key_file.is_file() and key_file.read_text() == job.key):
        raise KdpsError(
            f"{job.folder}: holds a run by other configs or options; remove it, or give another "
            "--output"
        )


def train(
    job: Job,
    script: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> int:
    """Train, or go on training; returns the exit code.

    Args:
        job: what to train.
        script: a training script of one's own; without it the bundled one.
        environment: variables to set.
        log: file that takes what the training prints.
    """
    program = ("-m", "kdps.train_net") if script is None else (str(script),)
    how = "--eval-only" if job.run.weights else "--resume"
    command = [sys.executable, *program, "--config-file", job.run.config, how, *job.options]
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / _KEY_FILE).write_text(job.key)
    with contextlib.nullcontext() if log is None else open(log, "a") as stream:
        return subprocess.call(
            command,
            env={**os.environ, **(environment or {})},
            stdout=stream,
            stderr=stream,
        )


def keep_outcome(job: Job) -> None:
    """Write the result of a job that has been trained.

    Raises:
        KdpsError: the training left no evaluation of one gallery size on one set.
    """
    outcome = _outcome(job)
    job.result.parent.mkdir(parents=True, exist_ok=True)
    write_json(outcome, job.result)


def _job(
    run: Run,
    seed: int,
    needed: Mapping[str, Job],
    output: Path,
    results: Path,
    of_run: str,
) -> Job:
    name = f"{run.name}_s{seed}"
    options = [*run.filled({own: job.folder for own, job in needed.items()})]
    options += ["SEED", str(seed), "OUTPUT_DIR", str(output / name)]
    weights = {f"DISTILLATION.{key}.WEIGHTS": own for key, own in run.teachers.items()}
    if run.weights:
        weights["MODEL.WEIGHTS"] = run.weights
    for key, own in sorted(weights.items()):
        options += [key, str(needed[own].folder / "model_final.pth")]
    keys = {key: needed[own].key for key, own in weights.items()}
    key = digest_of_training(of_run, seed, keys | {own: job.key for own, job in needed.items()})
    before = tuple(own.folder for own in needed.values())
    return Job(run, seed, key, output / name, results / f"{name}.json", tuple(options), before)


def _outcome(job: Job) -> dict[str, Any]:
    """What is kept of a training: AP and first rank of each query, and how it came about."""
    path = job.folder / "inference" / "person_search_results.json"
    if not path.is_file() and list(path.parent.glob(f"*/{path.name}")):
        raise KdpsError(f"{path.parent}: holds several sets; DATASETS.TEST must name one")
    file = read_results(path)
    if _SEARCH not in file.queries:
        raise KdpsError(
            f"{path}: holds {', '.join(file.queries) or 'no search'}; "
            "TEST.PERSON_SEARCH.GALLERY_SIZES must name one size, or none"
        )
    queries = read_queries(file, _SEARCH)
    # A query without a truth has no AP.
    scored = ~np.isnan(queries.ap)
    scores = json.loads(path.read_text())
    iterations, seconds = 0, 0.0
    if not job.run.weights:
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
        "query_ids": queries.query_id[scored].tolist(),
        "query_AP": [round(float(ap), 4) for ap in queries.ap[scored]],
        "first_rank": queries.first_rank[scored].tolist(),
        "iterations": iterations,
        "seconds": round(seconds, 1),
        "commit": git_commit(),
        "machine": machine(),
        "versions": versions(),
    }
