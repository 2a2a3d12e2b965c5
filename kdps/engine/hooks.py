# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Training hooks that make a resumed run equal to an uninterrupted one."""

from __future__ import annotations

import time
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter

from kdps.utils.rng import derive_seed, seed_all


class StepSeed(HookBase):
    """Seeds every training step by (seed, rank, iteration).

    What a step draws (sampled anchors and proposals, dropout) then depends neither on evaluations
    in between nor on where the run was last resumed.
    """

    def before_step(self) -> None:
        seed_all(derive_seed(self.trainer.seed, comm.get_rank(), self.trainer.iter))


class EvalHook(hooks.EvalHook):
    """Detectron2's ``EvalHook`` that makes up for an evaluation lost to a crash.

    A checkpoint is written before the evaluation of the same iteration. On resuming there, that
    evaluation is run (again), so that no value and no best checkpoint is missing.
    """

    def before_train(self) -> None:
        start = self.trainer.start_iter
        if 0 < start < self.trainer.max_iter and self._period > 0 and start % self._period == 0:
            self.trainer.storage.iter = start - 1
            self._do_eval()
            self.trainer.storage.iter = start


class BestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's ``BestCheckpointer`` that remembers the best value across resumes.

    Register it on all ranks, after :class:`EvalHook`, with a checkpointer that does not tag its
    files as the one to resume from.
    """

    def state_dict(self) -> dict[str, Any]:
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_metric, self.best_iter = state["best_metric"], state["best_iter"]

    def before_train(self) -> None:
        if self._val_metric in self.trainer.storage.latest():
            self._best_checking()

    def _best_checking(self) -> None:
        # Results exist on the main process only.
        if comm.is_main_process():
            super()._best_checking()


class PreciseBN(hooks.PreciseBN):
    """Detectron2's ``PreciseBN`` over the same images every time.

    Detectron2 goes on in its data where the last pass ended, which a resumed run cannot know.
    """

    def update_stats(self) -> None:
        self._data_iter = None
        super().update_stats()


class ScalarHistory(HookBase):
    """Carries the latest scalars over a resume, since writers smooth over them.

    Register it on all ranks.
    """

    def __init__(self, window: int = 20) -> None:
        """
        Args:
            window: iterations to remember; the writers' default.
        """
        self._window = window
        self._restored: dict[str, list[tuple[float, int]]] = {}

    def state_dict(self) -> dict[str, Any]:
        storage = self.trainer.storage
        first = storage.iter - self._window + 1
        # What is not smoothed (results, the learning rate) needs no history, and times are those of
        # the process that took them.
        return {
            name: [(float(x), int(i)) for x, i in history.values() if i >= first]
            for name, history in storage.histories().items()
            if storage.smoothing_hints()[name] and not name.endswith("time")
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._restored = state

    def before_train(self) -> None:
        for name, values in self._restored.items():
            for value, iteration in values:
                self.trainer.storage.put_scalar(name, value, cur_iter=iteration)


class MetricsWriter(hooks.PeriodicWriter):
    """Detectron2's ``PeriodicWriter`` with writers made when training starts.

    Only then is it known from which iteration on the records of a former run are void. The console
    is also written when ``seconds`` have passed, since iterations on a CPU may be slow.
    """

    def __init__(self, period: int, seconds: float) -> None:
        """
        Args:
            period: iterations between two writes.
            seconds: longest silence of the console while training.
        """
        super().__init__([], period)
        self._seconds = seconds
        self._last_time = time.monotonic()

    def before_train(self) -> None:
        self._writers = self.trainer.build_writers()
        self._last_time = time.monotonic()

    def after_step(self) -> None:
        due = (self.trainer.iter + 1) % self._period == 0
        if due or self.trainer.iter == self.trainer.max_iter - 1:
            super().after_step()
            self._last_time = time.monotonic()
        elif time.monotonic() - self._last_time > self._seconds:
            for writer in self._writers:
                if isinstance(writer, CommonMetricPrinter):
                    writer.write()
            self._last_time = time.monotonic()
