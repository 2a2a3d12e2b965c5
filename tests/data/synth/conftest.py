# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Small synthetic sets, drawn once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdps.data.synth import SynthConfig, generate

SMALL = SynthConfig(
    seed=3,
    train_images=6,
    test_images=60,
    train_ids=6,
    test_ids=12,
    width=200,
    height=150,
    cameras=2,
    scenes=2,
)


@pytest.fixture(scope="session")
def small() -> SynthConfig:
    """Settings of the small sets."""
    return SMALL


@pytest.fixture(scope="session")
def cuhk_root(tmp_path_factory) -> Path:
    """A small set in the layout of CUHK-SYSU."""
    return generate(SMALL, tmp_path_factory.mktemp("cuhk"), "cuhk-sysu").root


@pytest.fixture(scope="session")
def prw_root(tmp_path_factory) -> Path:
    """The same people in the layout of PRW."""
    return generate(SMALL, tmp_path_factory.mktemp("prw"), "prw").root
