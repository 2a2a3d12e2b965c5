# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """Folder of the recorded numbers of public implementations."""
    shared = os.environ.get("KDPS_SHARED")
    if not shared:
        pytest.skip("KDPS_SHARED does not name the folder of the reference data")
    return Path(shared) / "parity"
