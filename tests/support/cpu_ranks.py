# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Jobs of several CPU processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kdps.engine.distributed import launch

ONE_MACHINE = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}


def launch_ranks(function: Any, folder: Path, count: int) -> list[Any]:
    """Run ``function(folder)`` in some ranks, and read what each wrote to ``<rank>.pt`` there."""
    launch(function, num_processes=count, args=(folder,), **ONE_MACHINE)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]


def launch_two(function: Any, folder: Path) -> list[Any]:
    """The same in two."""
    return launch_ranks(function, folder, 2)
