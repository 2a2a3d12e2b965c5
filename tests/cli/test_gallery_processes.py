# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Two processes fill one local file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdps.cli.main import main
from kdps.index.opening import open_index
from kdps.index.sightings import concatenate


@pytest.mark.slow
def test_two_processes_take_turns(setup: Any, tmp_path: Path) -> None:
    files = ["--config-file", setup.config, "--weights", setup.weights, "--input", setup.images]
    command = list(map(str, ["gallery", "build", *files, "--index"]))
    start = [sys.executable, "-m", "kdps.cli.main", *command, str(tmp_path / "shared.db")]
    running = [
        subprocess.Popen([*start, "--shard", f"{i}/2"], stderr=subprocess.PIPE, text=True)
        for i in (1, 2)
    ]
    for process in running:
        assert process.wait(timeout=1200) == 0, process.stderr.read()
    assert main([*command, str(tmp_path / "alone.db")]) == 0
    keys = []
    for name in ("shared.db", "alone.db"):
        with open_index(str(tmp_path / name)) as index:
            keys.append(np.sort(concatenate(list(index.scan())).keys).tolist())
    assert keys[0] == keys[1]
