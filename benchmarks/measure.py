# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What the benchmarks share: a clock, and the conditions that belong to its figures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch

from kdps.utils.environment import git_commit, machine, versions


def seconds(work: Callable[[], Any], device: str) -> float:
    """Seconds that ``work`` takes, with what it started on a GPU."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def conditions() -> dict[str, Any]:
    """Where a figure was measured: load, commit, machine and versions."""
    return {
        "load": os.getloadavg()[0],
        "commit": git_commit(),
        "machine": machine(),
        "versions": versions(),
    }
