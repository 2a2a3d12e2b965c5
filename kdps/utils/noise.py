# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Warnings of libraries about their own insides, kept off the user's screen."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# Message and category of each. A user can neither understand nor mend these, and all else is shown.
_NOISE = (
    # fvcore and Detectron2 script functions when imported; torch is about to drop that.
    (r"`torch\.jit\.\w+` is deprecated", (FutureWarning, DeprecationWarning)),
    # Detectron2's anchor generator calls torch.meshgrid in its old form.
    (r"torch\.meshgrid: in an upcoming release", (UserWarning,)),
    # torch on 1 x 1 convolutions under DistributedDataParallel: a matter of speed at most.
    (r"Grad strides do not match bucket view strides", (UserWarning,)),
    # In mixed precision a first step whose gradients overflow is skipped, as it has to be.
    (r"Detected call of `lr_scheduler\.step\(\)` before", (UserWarning,)),
    # Detectron2's mixed precision uses the names of before torch 2.4.
    (r"`torch\.cuda\.amp\.\w+\(args\.\.\.\)` is deprecated", (FutureWarning,)),
)


# Logger and start of the message.
_LOGGED_NOISE = (
    # Detectron2 asks whether it is being traced.
    ("torch.fx._symbolic_trace", "is_fx_tracing will return true"),
    # Detectron2's report on the environment looks for compilers; a CPU is no fault.
    ("torch.utils.cpp_extension", "No CUDA runtime is found"),
    # Milvus' client writes a trace of each error that it raises.
    ("pymilvus.decorators", "RPC error"),
    ("pymilvus.client.connection_manager", "Connection recovery failed"),
    # Milvus Lite gives no time of its own with a scan.
    ("pymilvus.client.iterator.query_iterator", "failed to get mvccTs"),
)


@contextmanager
def quiet_known_noise() -> Iterator[None]:
    """Hide the known warnings inside the context, and no others."""
    with warnings.catch_warnings(), ExitStack() as stack:
        for message, categories in _NOISE:
            for category in categories:
                warnings.filterwarnings("ignore", message=message, category=category)
        for name, start in _LOGGED_NOISE:
            stack.enter_context(_without_records(logging.getLogger(name), start))
        yield


@contextmanager
def _without_records(logger: logging.Logger, start: str) -> Iterator[None]:
    def is_other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(start)

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)
