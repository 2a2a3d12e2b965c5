# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A config, random weights and images on disk, for what is run from the command line."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from detectron2.modeling import build_model
from footage import write_video

import kdps.modeling  # noqa: F401  registers the architecture
from kdps.search.images import read_bgr
from kdps.utils.testing_set import register_tiny_sets, tiny_training_cfg


@dataclass(frozen=True)
class Setup:
    """Paths of a config, of random weights for it, and of the tiny set's images."""

    config: Path
    weights: Path
    images: Path


def make_setup(folder: Path, images: Path) -> Setup:
    """Write all of it and register the tiny sets."""
    register_tiny_sets(images)
    # Random weights detect nothing with confidence; a threshold of 0 keeps what they find.
    cfg = tiny_training_cfg(
        folder / "run", "TEST.PERSON_SEARCH.SCORE_THRESH", 0.0, "MODEL.FROM_SCRATCH", False
    )
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, folder / "weights.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    return Setup(folder / "config.yaml", folder / "weights.pth", images)


def make_footage(folder: Path, images: Path) -> Path:
    """Four images of one camera, and a video of another: each of four images for a second."""
    folder.mkdir()
    for number in range(4):
        shutil.copy(images / f"{number}.png", folder)
    shown = [read_bgr(images / f"{4 + i // 5}.png") for i in range(20)]
    write_video(folder / "door.mkv", shown, [200 * i for i in range(20)], 1000)
    return folder
