# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from milvus_server import running_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple]:
    with running_server(tmp_path / "server") as running:
        yield running
