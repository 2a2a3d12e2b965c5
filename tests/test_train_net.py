# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from kdps import train_net
from kdps.utils.testing_set import tiny_training_cfg

ROOT = Path(__file__).parents[1]
OWN_SCRIPT = ROOT / "tests" / "engine" / "own_train_net.py"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config-file", "none.yaml"], "none.yaml: "),
        (["MODEL.NOPE", "1"], "MODEL.NOPE 1: Non-existent key: MODEL.NOPE"),
        (["--num-processes", "0"], "--num-processes: must be at least 1"),
        (["MODEL.DEVICE", "cpu", "DATASETS.TEST", "('nope',)"], "DATASETS.TEST: unknown data set"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_net.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"train_net: error: {message}")
    assert error.count("\n") == 1


def test_interruption_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_net, "run", interrupt)
    assert train_net.main([]) == 130
    assert "--resume" in capsys.readouterr().err


def test_help_names_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        train_net.main(["--help"])
    text = capsys.readouterr().out
    for flag in ("--config-file", "--resume", "--eval-only", "--num-gpus", "--num-processes"):
        assert flag in text
    assert "Examples:" in text


@pytest.fixture
def config(tmp_path: Path) -> Path:
    cfg = tiny_training_cfg(tmp_path / "output")
    cfg.MODEL.REID_HEAD.NUM_PIDS = cfg.MODEL.REID_HEAD.QUEUE_SIZE = -1
    path = tmp_path / "config.yaml"
    path.write_text(cfg.dump())
    return path


def run(
    config: Path, *argv: str, launcher: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the script of a user with a data set of their own."""
    folder = config.parent / "tiny_set"
    return subprocess.run(
        [sys.executable, *launcher, str(OWN_SCRIPT), "--config-file", str(config), *argv],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "TINY_SET": str(folder), "OMP_NUM_THREADS": "1"},
    )


def mean_ap(done: subprocess.CompletedProcess[str]) -> float:
    """The last mAP on screen, from the lines that Detectron2 prints for scripts."""
    return float(re.findall(r"copypaste: mAP,.*\n.*copypaste: ([\d.]+),", done.stdout)[-1])


@pytest.mark.slow
def test_train_evaluate_and_resume_from_the_shell(config: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    trained = run(config)
    assert trained.returncode == 0, trained.stderr
    assert trained.stderr == ""
    assert re.search(r"eta: \d+:\d+:\d+  iter: 3 ", trained.stdout)
    log = (output / "log.txt").read_bytes()
    resolved = (output / "config.yaml").read_bytes()
    assert yaml.safe_load(resolved)["MODEL"]["REID_HEAD"]["NUM_PIDS"] == 4

    # The tables' sizes stay open here, and no training set is needed.
    weights = str(output / "model_final.pth")
    flags = ("--eval-only", "DATASETS.TRAIN", "('gone',)", "MODEL.WEIGHTS", weights)
    evaluated = run(config, *flags)
    assert evaluated.returncode == 0, evaluated.stderr
    assert evaluated.stderr == ""
    assert "WARNING" not in evaluated.stdout
    assert "Warning" not in evaluated.stdout
    assert mean_ap(evaluated) == mean_ap(trained)
    # Evaluation leaves the record of the training as it is.
    assert (output / "log.txt").read_bytes() == log
    assert (output / "config.yaml").read_bytes() == resolved

    longer = run(config, "--resume", "SOLVER.MAX_ITER", "10")
    assert longer.returncode == 0, longer.stderr
    assert "Resuming at iteration 8 of 10" in longer.stdout
    assert torch.load(output / "model_final.pth", weights_only=True)["iteration"] == 9


@pytest.mark.slow
def test_torchrun_trains_as_the_flags_do(config: Path, tmp_path: Path) -> None:
    flags = ("SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()", "DATASETS.TEST", "()")
    flags = (*flags, "TEST.EVAL_PERIOD", "0", "OUTPUT_DIR")
    spawned = run(config, "--num-processes", "2", *flags, str(tmp_path / "spawned"))
    assert spawned.returncode == 0, spawned.stderr
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    joined = run(config, *flags, str(tmp_path / "joined"), launcher=launcher)
    assert joined.returncode == 0, joined.stderr
    one, other = (
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"]
        for name in ("spawned", "joined")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_corrupt_image_stops_training_in_one_line(config: Path) -> None:
    folder = config.parent / "tiny_set"
    folder.mkdir()
    (folder / "3.png").write_bytes(b"no image")
    for flags in (("DATALOADER.NUM_WORKERS", "1"), ("--num-processes", "2", "--dist-url", "auto")):
        stopped = run(config, *flags)
        assert stopped.returncode == 2
        errors = [x for x in stopped.stderr.splitlines() if "Terminating process" not in x]
        assert len(errors) == 1, stopped.stderr
        assert errors[0].startswith("train_net: error: ")
        assert "3.png" in errors[0]
