# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The tiny set and a model for it, as files that a command line can name."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Run, runner
from tiny_setup import Setup, make_footage, make_setup


@pytest.fixture(scope="package")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return make_setup(tmp_path_factory.mktemp("cli"), tmp_path_factory.mktemp("tiny_images"))


@pytest.fixture
def footage(setup: Setup, tmp_path: Path) -> Path:
    return make_footage(tmp_path / "footage", setup.images)


@pytest.fixture
def build(setup: Setup, footage: Path, tmp_path: Path) -> Run:
    """Runs ``kdps gallery build``."""
    return runner(
        "gallery build",
        config_file=setup.config,
        weights=setup.weights,
        input=footage,
        index=tmp_path / "footage.db",
    )
