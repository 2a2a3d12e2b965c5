# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Training killed at ten moments, and resumed, ends in the same bits."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from kdps.utils.testing_set import tiny_training_cfg

ITERATIONS, CHECKPOINT_PERIOD = 48, 4


def moments_of_death(rng: random.Random) -> list[dict[str, Any]]:
    """Ten moments in the order of training: six at any time, four while a file is written."""
    name = "model_{:07d}.pth".format
    written = [
        {"file": name(11), "stage": "half"},
        {"file": name(19), "stage": "renaming"},
        # The checkpoint is whole, but last_checkpoint still names the one before it.
        {"file": name(27), "stage": "renamed"},
        {"file": "last_checkpoint", "stage": "renaming"},
    ]
    moments = []
    for i in range(6):
        iteration = 8 * i + rng.randrange(2, 8)
        moments.append({"iteration": iteration, "delay": rng.uniform(0.0, 0.05)})
        if i in (0, 1, 2):
            moments.append(written[i])
    moments.append(written[3])
    return moments


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    config = tmp_path / "config.yaml"
    config.write_text(tiny_training_cfg(tmp_path).dump())
    base = ["--config-file", str(config)]
    opts = [
        *("SOLVER.MAX_ITER", str(ITERATIONS), "SOLVER.STEPS", "(20, 40)"),
        *("SOLVER.CHECKPOINT_PERIOD", str(CHECKPOINT_PERIOD), "TEST.EVAL_PERIOD", "12"),
        *("MODEL.REID_HEAD.NUM_PIDS", "-1", "MODEL.REID_HEAD.QUEUE_SIZE", "-1"),
    ]

    # The killed run draws its own seed and must remember it.
    flags = [*base, "--resume", *opts, "OUTPUT_DIR", str(killed), "SEED", "-1"]
    flags += ["DATALOADER.NUM_WORKERS", "1"]
    deaths = moments_of_death(random.Random(0))
    jobs = [{"flags": flags, "kill": kill} for kill in [*deaths, None]]
    assert run_jobs(jobs, tmp_path) == [-signal.SIGKILL] * len(deaths) + [0]

    config_of_killed = yaml.safe_load((killed / "config.yaml").read_text())
    flags = [*base, *opts, "OUTPUT_DIR", str(whole), "SEED", str(config_of_killed["SEED"])]
    assert run_jobs([{"flags": flags, "kill": None}], tmp_path) == [0]

    for name in ("model_final.pth", "model_best.pth"):
        a = torch.load(killed / name, weights_only=True)
        b = torch.load(whole / name, weights_only=True)
        assert flatten(a) == flatten(b), name
    assert metrics(killed) == metrics(whole)
    evaluated = {iteration for iteration, key in metrics(whole) if key == "person_search/mAP"}
    assert evaluated == {11, 23, 35, 48}
    assert not list(killed.glob("*.tmp"))


def run_jobs(jobs: list[dict[str, Any]], folder: Path) -> list[int]:
    (folder / "jobs.json").write_text(json.dumps(jobs))
    script = Path(__file__).with_name("killable_training.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder / "jobs.json"), str(folder / "tiny_set")],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def flatten(content: Any, key: str = "") -> dict[str, Any]:
    """All leaves of a checkpoint by path; tensors as bytes, so that equality is of bits."""
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, (list, tuple)):
        items = enumerate(content)
    elif isinstance(content, torch.Tensor):
        return {key: (str(content.dtype), tuple(content.shape), content.numpy().tobytes())}
    else:
        return {key: content}
    return {k: v for name, x in items for k, v in flatten(x, f"{key}/{name}").items()}


def metrics(folder: Path) -> dict[tuple[int, str], float]:
    """Every value but times, by iteration; an iteration may be there twice with equal values."""
    values: dict[tuple[int, str], float] = {}
    for line in (folder / "metrics.json").read_text().splitlines():
        record = json.loads(line)
        for key, value in record.items():
            if "time" not in key and key != "eta_seconds":
                assert values.setdefault((record["iteration"], key), value) == value
    return values
