# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A training on the tiny sets whose machine fails after five iterations.

Usage: failing_training.py FAILURE FOLDER FLAGS..., with the flags of train_net.py. The failure is

* ``memory``: a tensor that no machine can hold;
* ``disk``: the file of the next checkpoint lies on a full disk;
* ``folder``: the images are gone;
* ``kill``: the last rank is killed;
* ``none``: the folder is there (again), and nothing fails.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from kdps import train_net  # first: it quietens what libraries say when imported
from kdps.engine.trainer import PersonSearchTrainer
from kdps.utils.testing_set import register_tiny_sets

FAILURE, FOLDER = sys.argv[1], Path(sys.argv[2])
register_tiny_sets(FOLDER / "set")


class FailingTrainer(PersonSearchTrainer):
    def run_step(self) -> None:
        if self.iter == 5:
            if FAILURE == "memory":
                torch.empty(1 << 60, dtype=torch.uint8)
            elif FAILURE == "disk":
                temporary = Path(self.cfg.OUTPUT_DIR) / "model_0000005.pth.tmp"
                temporary.symlink_to("/dev/full")
            elif FAILURE == "folder":
                shutil.rmtree(FOLDER / "set")
            elif FAILURE == "kill" and dist.get_rank() == dist.get_world_size() - 1:
                os.kill(os.getpid(), signal.SIGKILL)
        super().run_step()


if __name__ == "__main__":
    sys.exit(train_net.main(sys.argv[3:], trainer_class=FailingTrainer))
