# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The tiny set and a model for it, as files that a command line can name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

import kdps.modeling  # noqa: F401  registers the architecture
from kdps.utils.testing_set import register_tiny_sets, tiny_training_cfg


@dataclass(frozen=True)
class Setup:
    """Paths of a config, of random weights for it, and of the tiny set's images."""

    config: Path
    weights: Path
    images: Path


@pytest.fixture(scope="package")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = tmp_path_factory.mktemp("cli")
    images = tmp_path_factory.mktemp("tiny_images")
    register_tiny_sets(images)
    # Random weights detect nothing with confidence; a threshold of 0 keeps what they find.
    cfg = tiny_training_cfg(
        folder / "run", "TEST.PERSON_SEARCH.SCORE_THRESH", 0.0, "MODEL.FROM_SCRATCH", False
    )
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, folder / "weights.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    return Setup(folder / "config.yaml", folder / "weights.pth", images)
