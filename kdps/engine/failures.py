# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What a machine does to a training, told in one line."""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from torch.multiprocessing import ProcessExitedException

from kdps.engine.console import USER_ERRORS

_RESUME = "--resume continues from the last whole checkpoint"
# What the last line of an error's text looks like, and what it means.
_MEANINGS = (
    (
        r"OutOfMemoryError|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED",
        "out of GPU memory; lower SOLVER.IMS_PER_BATCH or the sizes of INPUT",
    ),
    (
        r"MemoryError\b|can't allocate memory|Cannot allocate memory",
        "out of memory; lower SOLVER.IMS_PER_BATCH, DATALOADER.NUM_WORKERS or the sizes of INPUT",
    ),
    (
        r"(?P<what>DataLoader worker \(pid.*?\) is killed by signal: Bus error)",
        "{what}: it is out of shared memory; give more (docker run --shm-size 8g), or set "
        "DATALOADER.NUM_WORKERS 0",
    ),
    (
        r"(?P<what>DataLoader worker \(pid.*?\) (?:is killed by signal: \w+|exited unexpectedly))",
        "{what}; the system ends processes when memory runs out: lower DATALOADER.NUM_WORKERS",
    ),
    (
        r"\[Errno \d+\] (?P<what>No space left on device|Disk quota exceeded)(?P<file>: '.*')?",
        "{what}{file}",
    ),
    (
        r"(?i:gloo|nccl|store).*?(?P<what>Connection (?:closed|reset) by (?:remote )?peer"
        r"|Broken pipe|remote process exited|Socket closed)",
        "another process of the training was lost ({what}); its own message may say why",
    ),
)


def failure_of(error: BaseException) -> str | None:
    """What a failure of the machine is about; None for any other error.

    Args:
        error: what has ended a training, perhaps with the trace of another process in its text.
    """
    if isinstance(error, ProcessExitedException):
        return f"{_ended(error)}; {_RESUME}"
    lines = f"{type(error).__name__}: {error}".strip().splitlines()
    # The text of an error may go on for some lines, behind a trace.
    starts = [i for i, line in enumerate(lines) if re.match(r"[A-Za-z_.]+: ", line)]
    text = " ".join(lines[starts[-1] if starts else 0 :])
    for pattern, meaning in _MEANINGS:
        found = re.search(pattern, text)
        if found:
            parts = {name: value or "" for name, value in found.groupdict().items()}
            return f"{meaning.format(**parts)}; {_RESUME}"
    return None


def _ended(error: ProcessExitedException) -> str:
    name = error.signal_name
    if name is None:
        return f"process {error.error_index} has ended with exit code {error.exit_code}"
    hint = ""
    if name == signal.SIGKILL.name:
        hint = ", as the system does when memory runs out"
    return f"process {error.error_index} was killed by {name}{hint}"


@contextmanager
def untraced_errors() -> Iterator[None]:
    """Keep logging from tracing errors that are told in one line.

    That is Detectron2's training loop, and a log file on a full disk.
    """
    train_loop = logging.getLogger("detectron2.engine.train_loop")
    traces_its_own = logging.raiseExceptions

    def is_a_surprise(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        told = isinstance(error, USER_ERRORS) or (error is not None and failure_of(error))
        return not told

    train_loop.addFilter(is_a_surprise)
    logging.raiseExceptions = False
    try:
        yield
    finally:
        train_loop.removeFilter(is_a_surprise)
        logging.raiseExceptions = traces_its_own
