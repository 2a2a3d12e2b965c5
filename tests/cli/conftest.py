# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The tiny set and a model for it, as files that a command line can name."""

from __future__ import annotations

import pytest
from tiny_setup import Setup, make_setup


@pytest.fixture(scope="package")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return make_setup(tmp_path_factory.mktemp("cli"), tmp_path_factory.mktemp("tiny_images"))
