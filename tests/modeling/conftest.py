# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import os
from pathlib import Path

import numpy as np
import pytest
from parity_kit import converted_weights, load_kit

# Its assertions tell as much as those of a test then.
pytest.register_assert_rewrite("parity_assertions")


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """Folder of the recorded numbers of public implementations."""
    shared = os.environ.get("KDPS_SHARED")
    if not shared:
        pytest.skip("KDPS_SHARED does not name the folder of the reference data")
    return Path(shared) / "parity"


@pytest.fixture(scope="session")
def kit(parity_dir):
    return load_kit(parity_dir)


@pytest.fixture(scope="module")
def recorded(parity_dir, request):
    """The numbers in the folder ``RECORDED_AS`` of the module."""
    return dict(np.load(parity_dir / request.module.RECORDED_AS / "expected.npz"))


@pytest.fixture(scope="module")
def weights(parity_dir, kit, request):
    """The weights of the module's ``METHOD``."""
    module = request.module
    return converted_weights(parity_dir, kit, module.RECORDED_AS, module.METHOD)
