# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import threading
from pathlib import Path

import pytest
import torch

from kdps.ablation.parallel import do_jobs, share_of_machine
from kdps.ablation.plan import Run
from kdps.ablation.runs import Job


def job(name, *teachers):
    run = Run(name, name, "a.yaml", (), (0,), {})
    return Job(run, 0, name, Path(name), Path(f"{name}.json"), (), tuple(map(Path, teachers)))


def test_as_many_run_at_a_time_as_there_are_workers_each_in_its_place(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    together, devices = threading.Barrier(2), []

    def work(own, environment):
        # Stands still unless two are here at a time.
        together.wait(timeout=30)
        devices.append(environment["CUDA_VISIBLE_DEVICES"])
        together.wait(timeout=30)

    do_jobs([job("a"), job("b"), job("c"), job("d")], work, 2)
    assert sorted(devices) == ["4", "4", "7", "7"]
    assert set(devices[:2]) == {"4", "7"}


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_pupils_wait_for_their_teachers(workers):
    jobs = [job("a"), job("b", "a"), job("c"), job("d", "a", "c"), job("e", "elsewhere")]
    done, lock = [], threading.Lock()

    def work(own, environment):
        with lock:
            assert all(t.name in done for t in own.needed if t.name != "elsewhere")
        with lock:
            done.append(own.run.name)

    do_jobs(jobs, work, workers)
    assert sorted(done) == list("abcde")


def test_an_error_of_the_work_itself_is_not_swallowed():
    def work(own, environment):
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        do_jobs([job("a")], work, 1)


@pytest.mark.parametrize(
    ("gpus", "variables", "shares"),
    [
        (0, {}, [{"OMP_NUM_THREADS": "3"}] * 2),
        (0, {"OMP_NUM_THREADS": "1"}, [{}, {}]),
        (1, {}, [{}, {}]),
        (2, {}, [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]),
        (2, {"CUDA_VISIBLE_DEVICES": "5,3"}, [{"CUDA_VISIBLE_DEVICES": x} for x in "53"]),
    ],
)
def test_shares_of_a_machine(gpus, variables, shares, monkeypatch):
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert [share_of_machine(place, 2) for place in range(2)] == shares
    assert share_of_machine(0, 1) == {}
