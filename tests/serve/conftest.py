# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from pathlib import Path

import pytest
from colour_desk import make_desk, write_colour_footage

from kdps.serve.desk import SearchDesk


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    return write_colour_footage(tmp_path / "footage")


@pytest.fixture
def desk(footage: Path) -> SearchDesk:
    return make_desk(footage, 50_000)
