# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple]:
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(str(tmp_path / "server"))
    yield server, f"http://127.0.0.1:{port}"
    server.stop(grace=0)
    database.close()
