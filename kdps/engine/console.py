# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How a training run reports bad input."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from kdps.errors import KdpsError

# Errors that are about the user's input or settings, not about the program.
USER_ERRORS = (KdpsError, FloatingPointError)
_TRACE = "Traceback (most recent call last)"
_LAST_ERROR = re.compile(r"^(?:kdps\.errors\.KdpsError|FloatingPointError): ", re.MULTILINE)


def report_error(error: BaseException) -> None:
    """Print an error meant for the user on one line."""
    sys.stderr.write(f"train_net: error: {message_of(error)}\n")


def message_of(error: BaseException) -> str:
    """The message of an error on one line, without the trace that a wrapped one brings along."""
    return " ".join((_wrapped_message(error) or str(error)).split())


def is_wrapped_user_error(error: BaseException) -> bool:
    """Whether the text of an error is a trace that ends with an error meant for the user.

    So are those that data loaders' workers and spawned ranks have raised.
    """
    return _wrapped_message(error) is not None


def _wrapped_message(error: BaseException) -> str | None:
    _, found, last_trace = str(error).rpartition(_TRACE)
    ends = list(_LAST_ERROR.finditer(last_trace))
    return last_trace[ends[-1].end() :] if found and ends else None


@contextmanager
def untraced_user_errors() -> Iterator[None]:
    """Keep Detectron2's training loop from logging the trace of a user's error."""
    train_loop = logging.getLogger("detectron2.engine.train_loop")

    def is_no_user_error(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], USER_ERRORS))

    train_loop.addFilter(is_no_user_error)
    try:
        yield
    finally:
        train_loop.removeFilter(is_no_user_error)
