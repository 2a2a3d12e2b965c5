# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A time limit per example would make tests fail on a busy machine.
settings.register_profile("kdps", deadline=None)
settings.load_profile("kdps")


@pytest.fixture(scope="session", autouse=True)
def no_cache():
    """Tests neither read nor fill the cache of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDPS_CACHE", "0")
        yield


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
