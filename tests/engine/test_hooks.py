# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.utils.events import CommonMetricPrinter, EventStorage, EventWriter

from kdps.engine import hooks


def trainer(**attributes: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"iter": 0, "start_iter": 0, "max_iter": 100, **attributes})


# ----------------------------------------------------------------- StepSeed


def draws(seed: int, iteration: int) -> tuple[float, ...]:
    hook = hooks.StepSeed()
    hook.trainer = trainer(seed=seed, iter=iteration)
    hook.before_step()
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_step_draws_follow_from_seed_and_iteration() -> None:
    first = draws(1, 5)
    torch.rand(100)
    assert draws(1, 5) == first
    for other in (draws(1, 6), draws(2, 5)):
        assert not set(other) & set(first)


def test_ranks_draw_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    first = draws(1, 5)
    monkeypatch.setattr(hooks.comm, "get_rank", lambda: 1)
    assert not set(draws(1, 5)) & set(first)


# ----------------------------------------------------------------- EvalHook


@pytest.mark.parametrize(
    ("start", "period", "maximum", "evaluated"),
    [
        (0, 4, 20, False),  # a new run
        (8, 4, 20, True),  # the checkpoint's evaluation may be lost
        (7, 4, 20, False),  # none was due
        (8, 0, 20, False),  # evaluated at the end only
        (20, 4, 20, False),  # a finished run, which after_train evaluates
    ],
)
def test_evaluation_due_at_the_checkpoint_is_run_on_resume(
    start: int, period: int, maximum: int, evaluated: bool
) -> None:
    hook = hooks.EvalHook(period, lambda: {"person_search": {"mAP": 3.0}})
    with EventStorage(start) as storage:
        hook.trainer = trainer(start_iter=start, max_iter=maximum, storage=storage)
        hook.before_train()
        assert storage.iter == start
        expected = {"person_search/mAP": (3.0, start - 1)} if evaluated else {}
        assert storage.latest() == expected


# --------------------------------------------------------- BestCheckpointer


class RecordingCheckpointer:
    def __init__(self) -> None:
        self.saved: list[tuple[str, int]] = []

    def save(self, name: str, iteration: int) -> None:
        self.saved.append((name, iteration))


def best(period: int = 2) -> tuple[hooks.BestCheckpointer, RecordingCheckpointer]:
    checkpointer = RecordingCheckpointer()
    return hooks.BestCheckpointer(period, checkpointer, "person_search/mAP"), checkpointer


def after_evaluation(hook: hooks.BestCheckpointer, value: float, iteration: int) -> None:
    with EventStorage(iteration) as storage:
        storage.put_scalar("person_search/mAP", value, smoothing_hint=False)
        hook.trainer = trainer(iter=iteration, storage=storage)
        hook.after_step()


def test_best_value_survives_a_resume() -> None:
    hook, checkpointer = best()
    for iteration, value in ((1, 30.0), (3, 50.0), (5, 40.0)):
        after_evaluation(hook, value, iteration)
    assert checkpointer.saved == [("model_best", 1), ("model_best", 3)]
    resumed, checkpointer = best()
    resumed.load_state_dict(hook.state_dict())
    after_evaluation(resumed, 45.0, 7)
    assert checkpointer.saved == []
    after_evaluation(resumed, 55.0, 9)
    assert checkpointer.saved == [("model_best", 9)]


def test_evaluation_made_up_on_resume_may_be_the_best() -> None:
    hook, checkpointer = best()
    hook.load_state_dict({"best_metric": 30.0, "best_iter": 1})
    with EventStorage(4) as storage:
        hook.trainer = trainer(storage=storage)
        hook.before_train()
        assert checkpointer.saved == []
        storage.put_scalar("person_search/mAP", 60.0, smoothing_hint=False, cur_iter=3)
        hook.before_train()
    assert checkpointer.saved == [("model_best", 3)]


def test_other_ranks_save_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks.comm, "is_main_process", lambda: False)
    hook, checkpointer = best()
    after_evaluation(hook, 50.0, 1)
    assert checkpointer.saved == []


# ------------------------------------------------------------ ScalarHistory


def test_smoothing_goes_on_after_a_resume() -> None:
    def put(storage: EventStorage, iterations: range) -> None:
        for storage.iter in iterations:
            storage.put_scalar("loss", float(storage.iter**2 % 7))
            storage.put_scalar("lr", 0.1, smoothing_hint=False)

    with EventStorage(0) as whole:
        put(whole, range(40))
    hook = hooks.ScalarHistory(window=20)
    with EventStorage(0) as storage:
        put(storage, range(30))
        hook.trainer = trainer(storage=storage)
        state = hook.state_dict()
    assert {name: len(values) for name, values in state.items()} == {"loss": 20}
    resumed = hooks.ScalarHistory(window=20)
    resumed.load_state_dict(state)
    with EventStorage(30) as storage:
        resumed.trainer = trainer(storage=storage)
        resumed.before_train()
        put(storage, range(30, 40))
        assert storage.latest_with_smoothing_hint(20) == whole.latest_with_smoothing_hint(20)


# ------------------------------------------------------------ MetricsWriter


class CountingWriter(EventWriter):
    writes = 0

    def write(self) -> None:
        self.writes += 1


class CountingConsole(CommonMetricPrinter):
    writes = 0

    def write(self) -> None:
        self.writes += 1


@pytest.mark.parametrize(("seconds", "console_writes"), [(1000.0, 2), (0.0, 10)])
def test_console_is_never_silent_for_long(seconds: float, console_writes: int) -> None:
    file, console = CountingWriter(), CountingConsole()
    hook = hooks.MetricsWriter(period=5, seconds=seconds)
    hook.trainer = trainer(build_writers=lambda: [console, file])
    hook.before_train()
    for hook.trainer.iter in range(10):
        hook.after_step()
    assert file.writes == 2
    assert console.writes == console_writes


def test_last_iteration_is_written() -> None:
    file = CountingWriter()
    hook = hooks.MetricsWriter(period=5, seconds=1000.0)
    hook.trainer = trainer(build_writers=lambda: [file], iter=6, max_iter=7)
    hook.before_train()
    hook.after_step()
    assert file.writes == 1
