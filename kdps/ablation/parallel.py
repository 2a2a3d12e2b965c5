# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Doing several jobs of an ablation at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import torch

from kdps.ablation.runs import Job

Environment = Mapping[str, str]


def do_jobs(
    jobs: Sequence[Job],
    work: Callable[[Job, Environment], None],
    workers: int,
) -> None:
    """Do all jobs, each after those that train its teachers.

    Args:
        jobs: teachers before those that learn from them.
        work: does one; it is called from several threads, with the variables that give a training
            its share of the machine, and must not raise for what concerns one job only.
        workers: how many at a time.
    """
    waiting = list(jobs)
    shares = [share_of_machine(place, workers) for place in range(workers)]
    running: dict[Future[None], tuple[Job, Environment]] = {}
    with ThreadPoolExecutor(workers) as pool:
        while waiting or running:
            undone = {job.folder for job in (*waiting, *(job for job, _ in running.values()))}
            ready = (job for job in waiting if undone.isdisjoint(job.needed))
            while shares and (job := next(ready, None)) is not None:
                share = shares.pop(0)
                running[pool.submit(work, job, share)] = (job, share)
            taken = {job.folder for job, _ in running.values()}
            waiting = [job for job in waiting if job.folder not in taken]
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                shares.append(running.pop(future)[1])
                future.result()


def share_of_machine(place: int, workers: int) -> dict[str, str]:
    """Variables that give one of several trainings its GPU, or else its CPU cores.

    Args:
        place: number of the worker, from 0.
        workers: how many there are; more than GPUs share these.
    """
    if workers == 1:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = (
        list(map(str, range(torch.cuda.device_count()))) if visible is None else visible.split(",")
    )
    if torch.cuda.is_available() and len(devices) > 1:
        return {"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]}
    if torch.cuda.is_available() or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // workers))}
