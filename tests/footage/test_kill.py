# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A build that is killed again and again ends with the index of one that is not."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from footage import write_video

import kdps.modeling  # noqa: F401  registers the architecture
from kdps.index.opening import open_index
from kdps.index.sightings import Sightings, concatenate
from kdps.utils.testing_set import tiny_training_cfg

SIZE = (64, 80, 3)


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Of a build over two videos and some images, one of which cannot be read."""
    rng = np.random.default_rng(0)
    footage = tmp_path / "footage"
    (footage / "yard").mkdir(parents=True)
    for name, frames in (("door.mkv", 60), ("yard/b.mkv", 30)):
        images = [rng.integers(0, 255, SIZE, dtype=np.uint8) for _ in range(frames)]
        write_video(footage / name, images, [250 * i for i in range(frames)], 1000)
    for number in range(6):
        (footage / f"{number}.bmp").write_bytes(bytes(3) if number == 3 else _bmp(rng))
    cfg = tiny_training_cfg(
        tmp_path / "run", "TEST.PERSON_SEARCH.SCORE_THRESH", 0.0, "MODEL.FROM_SCRATCH", False
    )
    cfg.TEST.IMS_PER_BATCH = 2
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "weights.pth")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    files = ["--config-file", str(tmp_path / "config.yaml"), "--input", str(footage)]
    return ["gallery", "build", *files, "--weights", str(tmp_path / "weights.pth")]


def _bmp(rng: np.random.Generator) -> bytes:
    return cv2.imencode(".bmp", rng.integers(0, 255, SIZE, dtype=np.uint8))[1].tobytes()


@pytest.mark.slow
def test_ten_kills_change_nothing(arguments: list[str], tmp_path: Path) -> None:
    rng = random.Random(0)
    killed = [*arguments, "--index", str(tmp_path / "killed.db")]
    # A commit calls the index up to four times, so that each kind of call is hit. There are 12
    # commits to be done, of which no build that is killed gets through more than one or two.
    deaths = [
        {"number": 1 + number % 5, "delay": rng.choice((0.0, rng.uniform(0.0, 0.01)))}
        for number in range(10)
    ]
    jobs = [{"argv": killed, "death": death} for death in [*deaths, None]]
    whole = [*arguments, "--index", str(tmp_path / "whole.db")]
    done = run_jobs([*jobs, {"argv": whole, "death": None}], tmp_path)
    assert [status for status, _ in done] == [-signal.SIGKILL] * len(deaths) + [0, 0]
    assert_equal_rows(tmp_path / "killed.db", tmp_path / "whole.db")


@pytest.mark.slow
def test_kills_with_changed_options_change_nothing(arguments: list[str], tmp_path: Path) -> None:
    """An index is built again with other options, killed, and finished with either options."""
    rng = random.Random(1)
    options = {"old": arguments, "new": [*arguments, "--camera", "gate", "--rate", "1.5"]}
    whole = {name: tmp_path / f"{name}.db" for name in options}
    trial = tmp_path / "trial.db"
    places = (("old", whole["old"]), ("new", whole["new"]), ("old", trial), ("new", trial))
    undisturbed = [
        {"argv": [*options[name], "--index", str(path)], "death": None} for name, path in places
    ]
    done = run_jobs(undisturbed, tmp_path)
    assert [status for status, _ in done] == [0] * len(places)
    seconds = done[-1][1]
    jobs, rounds = [], []
    for number in range(8):
        path, last = tmp_path / f"killed_{number}.db", ("old", "new")[number % 2]
        shutil.copytree(whole["old"], path)
        rounds.append((path, last))
        deaths = [
            {"seconds": rng.uniform(0.4, 0.9) * seconds},
            {"number": 1 + number, "delay": rng.uniform(0.0, 0.01)},
        ]
        for death in deaths if number % 4 < 2 else deaths[::-1]:
            jobs.append({"argv": [*options["new"], "--index", str(path)], "death": death})
        jobs.append({"argv": [*options[last], "--index", str(path)], "death": None})

    statuses = [status for status, _ in run_jobs(jobs, tmp_path)]
    assert set(statuses[2::3]) == {0}
    assert set(statuses) == {0, -signal.SIGKILL}
    # A call of the index that is the first death of its round is certain to come, a moment is not.
    assert statuses.count(-signal.SIGKILL) > len(rounds) // 2
    for path, last in rounds:
        assert_equal_rows(path, whole[last])


def assert_equal_rows(path: Path, whole: Path) -> None:
    one, other = contents(path), contents(whole)
    assert len(other) > 200
    assert len(set(other.keys.tolist())) == len(other)
    assert one.keys.tolist() == other.keys.tolist()
    for name in ("sources", "cameras", "frames", "clocks", "times"):
        assert (getattr(one, name) == getattr(other, name)).all()
    np.testing.assert_allclose(one.embeddings, other.embeddings, atol=1e-5)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)


def contents(path: Path) -> Sightings:
    """All rows by key."""
    with open_index(str(path)) as index:
        rows = concatenate(list(index.scan()))
    return rows.take(np.argsort(rows.keys))


def run_jobs(jobs: list[dict], folder: Path) -> list[tuple[int, float]]:
    """Exit status and seconds of each."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    script = Path(__file__).with_name("killable_build.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder / "jobs.json")],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
