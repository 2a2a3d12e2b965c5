# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest

from kdps.utils.testing_set import register_tiny_sets


@pytest.fixture(scope="session", autouse=True)
def _tiny_sets(tmp_path_factory: pytest.TempPathFactory) -> None:
    register_tiny_sets(tmp_path_factory.mktemp("tiny_set"))
