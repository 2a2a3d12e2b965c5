# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A server that speaks Milvus' protocol, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def running_server(folder: Path) -> Iterator[tuple[Any, str]]:
    """The server (``stop`` ends it) and its address, over the collections of a folder."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(str(folder))
    try:
        yield server, f"http://127.0.0.1:{port}"
    finally:
        server.stop(grace=0)
        database.close()
