# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from kdps.utils.testing_set import register_tiny_sets


@pytest.fixture(scope="session", autouse=True)
def _tiny_sets(tmp_path_factory: pytest.TempPathFactory) -> None:
    register_tiny_sets(tmp_path_factory.mktemp("tiny_set"))


@pytest.fixture(autouse=True)
def _restored_loggers() -> Iterator[None]:
    """Undo what Detectron2's set-up of logging does to the process."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "kdps")]
    before = [(x, x.propagate, x.level, list(x.handlers)) for x in loggers]
    yield
    for logger, propagate, level, handlers in before:
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.propagate, logger.handlers = propagate, handlers
        logger.setLevel(level)
