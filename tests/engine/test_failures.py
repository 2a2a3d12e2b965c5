# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Failures of the machine; some in trainings of their own (see failing_training.py)."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from short_training import assert_equal, weights
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from kdps.engine.failures import failure_of, untraced_errors
from kdps.errors import KdpsError
from kdps.utils.testing_set import tiny_training_cfg

TRACE = (
    "\n\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):\n"
)
FULL = os.strerror(errno.ENOSPC)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of GPU mem"),
        (MemoryError(), "out of memory; lower SOLVER.IMS_PER_BATCH, DATALOADER.NUM_WORKERS"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (OSError(errno.ENOSPC, FULL, "a/metrics.json"), f"{FULL}: 'a/metrics.json'; --resume"),
        (OSError(errno.ENOSPC, FULL), f"{FULL}; --resume continues"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            "DataLoader worker (pid 7) is killed by signal: Killed; the system",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is"),
            "DataLoader worker (pid 7) is killed by signal: Bus error: it is out of shared memory",
        ),
        (
            RuntimeError("[gloo/tcp/pair.cc:1] Connection closed by peer [1.2.3.4]:5"),
            "another process of the training was lost (Connection closed by peer)",
        ),
        (
            ProcessExitedException("", 1, 77, -9, "SIGKILL"),
            "process 1 was killed by SIGKILL, as the system does when memory runs out; --resume",
        ),
        (ProcessExitedException("", 0, 77, -15, "SIGTERM"), "process 0 was killed by SIGTERM; --"),
        (ProcessExitedException("", 0, 77, 3), "process 0 has ended with exit code 3; --resume"),
        (
            ProcessRaisedException(
                f"{TRACE}  File 'x'\ntorch.OutOfMemoryError: CUDA out of\nmemory.", 1, 77
            ),
            "out of GPU memory",
        ),
    ],
)
def test_failure_is_one_line_that_says_how_to_go_on(error: Exception, message: str) -> None:
    failure = failure_of(error)
    assert failure is not None
    assert failure.startswith(message)
    assert failure.endswith("--resume continues from the last whole checkpoint")
    assert "\n" not in failure


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not fit"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        # It was handled, and then the program failed.
        ProcessRaisedException(f"{TRACE}MemoryError: a\n\nDuring:\n{TRACE}KeyError: 'a'", 0, 1),
    ],
)
def test_a_defect_is_no_failure_of_the_machine(error: Exception) -> None:
    assert failure_of(error) is None


def test_only_what_is_told_loses_the_logged_trace(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("detectron2.engine.train_loop")

    def log(error: Exception) -> None:
        try:
            raise error
        except Exception:
            logger.exception("Exception during training:")

    with untraced_errors():
        log(KdpsError("bad input"))
        log(FloatingPointError("Loss became infinite"))
        log(MemoryError())
        assert caplog.records == []
        log(RuntimeError("a defect"))
        assert len(caplog.records) == 1
    log(KdpsError("outside"))
    assert len(caplog.records) == 2
    assert logging.raiseExceptions


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Eight iterations with a checkpoint after each second one."""
    path = tmp_path / "config.yaml"
    opts = ("SOLVER.CHECKPOINT_PERIOD", 2, "DATASETS.TEST", (), "TEST.EVAL_PERIOD", 0)
    path.write_text(tiny_training_cfg(tmp_path / "output", *opts).dump())
    return path


def run(config: Path, failure: str, *flags: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("failing_training.py")
    return subprocess.run(
        [sys.executable, str(script), failure, str(config.parent), *flags, "--config-file"]
        + [str(config), "--resume"],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "flags", "code", "message"),
    [
        ("memory", (), 1, "out of memory; lower SOLVER.IMS_PER_BATCH"),
        ("disk", (), 2, f"model_0000005.pth: cannot be written ({FULL})"),
        ("folder", (), 2, ".png"),
        ("kill", ("--num-processes", "2"), 1, "process"),
    ],
)
def test_training_stops_in_one_line_and_goes_on(
    config: Path, tmp_path: Path, failure: str, flags: tuple[str, ...], code: int, message: str
) -> None:
    output = tmp_path / "output"
    stopped = run(config, failure, *flags)
    errors = [x for x in stopped.stderr.splitlines() if "Terminating process" not in x]
    assert len(errors) == 1, stopped.stderr
    assert errors[0].startswith("train_net: error: ")
    assert message in errors[0]
    assert "Traceback" not in stopped.stdout
    assert stopped.returncode == code
    assert (output / "last_checkpoint").read_text() == "model_0000003.pth"
    assert not list(output.glob("*.tmp"))

    resumed = run(config, "none", *flags)
    assert resumed.returncode == 0, resumed.stderr
    assert "Resuming at iteration 4 of 8" in resumed.stdout
    finished = weights(output)
    config.write_text(config.read_text().replace(str(output), str(tmp_path / "whole")))
    assert run(config, "none", *flags).returncode == 0
    assert_equal(finished["model"], weights(tmp_path / "whole")["model"])
