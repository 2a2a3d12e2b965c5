# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What the benchmarks share: a clock, and the conditions that belong to its figures."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
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


def by_turns(works: Mapping[str, Callable[[], Any]], repeat: int, device: str) -> dict[str, float]:
    """Median seconds of each work; they take turns, so that a noisy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeat):
        for name, work in works.items():
            times[name].append(seconds(work, device))
    return {name: statistics.median(own) for name, own in times.items()}


def conditions() -> dict[str, Any]:
    """Where a figure was measured: load, commit, machine and versions."""
    return {
        "load": os.getloadavg()[0],
        "commit": git_commit(),
        "machine": machine(),
        "versions": versions(),
    }
