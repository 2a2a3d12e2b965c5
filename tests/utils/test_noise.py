# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import logging
import warnings

import pytest

from kdps.utils.noise import quiet_known_noise


@pytest.mark.filterwarnings("always")
def test_hides_known_warnings_and_no_others() -> None:
    known = [
        ("`torch.jit.script` is deprecated. Please switch", FutureWarning),
        ("torch.meshgrid: in an upcoming release, it will be required", UserWarning),
        ("`torch.cuda.amp.autocast(args...)` is deprecated. Please use", FutureWarning),
        ("Grad strides do not match bucket view strides. This may", UserWarning),
    ]
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with quiet_known_noise():
            for message, category in known:
                warnings.warn(message, category, stacklevel=1)
            assert shown == []
            warnings.warn("something new", UserWarning, stacklevel=1)
        for message, category in known:
            warnings.warn(message, category, stacklevel=1)
    assert len(shown) == 1 + len(known)


def test_hides_known_log_records_and_no_others(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("torch.fx._symbolic_trace")
    with quiet_known_noise():
        logger.warning("is_fx_tracing will return true for both")
        assert caplog.records == []
        logger.warning("something new")
    logger.warning("is_fx_tracing will return true for both")
    assert len(caplog.records) == 2
