# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How a training run reports bad input."""

from __future__ import annotations

import re
import sys

from kdps.errors import KdpsError

# Errors that are about the user's input or settings, not about the program.
USER_ERRORS = (KdpsError, FloatingPointError)
_TRACE = "Traceback (most recent call last)"
_LAST_ERROR = re.compile(r"^(?:kdps\.errors\.KdpsError|FloatingPointError): ", re.MULTILINE)


def report_error(message: str) -> None:
    """Print what has ended a training on one line."""
    sys.stderr.write(f"train_net: error: {message}\n")


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
