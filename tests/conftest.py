# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
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
