# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Embeddings of a frozen teacher, kept on disk."""

from __future__ import annotations

import logging
import os
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from kdps.utils.output import make_folder

logger = logging.getLogger(__name__)

_SCHEMA = "CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB, checksum INTEGER)"
# SQLite takes at least so many variables in a statement.
_KEYS_AT_ONCE = 500
# Seconds to wait for another process that writes.
_PATIENCE = 60.0


class EmbeddingCache:
    """Rows by the key of what they were computed from.

    They lie in one SQLite file, as files of their own would be millions. Several processes may
    share it. One that is damaged is told and begun anew; where the disk is full, or cannot be
    written, the training goes on without keeping more.
    """

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        """
        Args:
            folder: where the file lies; made if it is not there.
            fingerprint: of all that decides the row of a key: weights and config.

        Raises:
            KdpsError: the folder cannot be made.
        """
        self.path = Path(folder) / f"{fingerprint[:16]}.sqlite"
        make_folder(self.path.parent)
        self.hits = self.misses = 0
        self.takes_more = True
        # A connection is of the process that has opened it.
        self._connections: dict[int, sqlite3.Connection] = {}

    def describe(
        self, keys: Sequence[bytes | None], compute: Callable[[list[int]], torch.Tensor]
    ) -> torch.Tensor:
        """The rows of keys, those that are not there computed and kept.

        Args:
            keys: R of them, at least one. What has None as key is always computed and never kept.
            compute: from numbers of keys to their (N, D) float32 rows.

        Returns:
            (R, D) float32, on the CPU if all were there.
        """
        found = self._read([key for key in keys if key is not None])
        missing = [i for i, key in enumerate(keys) if key not in found]
        self.hits += len(keys) - len(missing)
        self.misses += len(missing)
        if not missing:
            return torch.stack([found[key] for key in keys])
        computed = compute(missing)
        place = {row: i for i, row in enumerate(missing)}
        kept = [row for row in missing if keys[row] is not None]
        if kept:
            self._keep([keys[row] for row in kept], computed[[place[row] for row in kept]])
        return torch.stack(
            [
                computed[place[i]] if i in place else found[key].to(computed.device)
                for i, key in enumerate(keys)
            ]
        )

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, torch.Tensor]:
        found: dict[bytes, torch.Tensor] = {}
        distinct = list(dict.fromkeys(keys))
        try:
            for start in range(0, len(distinct), _KEYS_AT_ONCE):
                part = distinct[start : start + _KEYS_AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, value, checksum FROM rows WHERE key IN ({marks})"
                for key, value, checksum in self._connection().execute(query, part):
                    if zlib.crc32(value) == checksum:
                        found[key] = torch.from_numpy(np.frombuffer(value, np.float32).copy())
        except sqlite3.OperationalError as error:
            self._stop(error)
        except sqlite3.DatabaseError as error:
            self._begin_anew(error)
        return found

    def _keep(self, keys: Sequence[bytes], rows: torch.Tensor) -> None:
        if not self.takes_more:
            return
        values = [row.tobytes() for row in rows.detach().float().cpu().numpy()]
        entries = [(k, v, zlib.crc32(v)) for k, v in zip(keys, values, strict=True)]
        try:
            with self._connection() as connection:
                connection.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", entries)
        except sqlite3.OperationalError as error:
            self._stop(error)
        except sqlite3.DatabaseError as error:
            self._begin_anew(error)

    def _connection(self) -> sqlite3.Connection:
        process = os.getpid()
        if process not in self._connections:
            connection = sqlite3.connect(self.path, timeout=_PATIENCE)
            # Readers and one writer at a time; what a power cut takes is computed again.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute(_SCHEMA)
            self._connections[process] = connection
        return self._connections[process]

    def _stop(self, error: sqlite3.Error) -> None:
        if self.takes_more:
            self.takes_more = False
            logger.warning("%s: %s; embeddings are kept no longer", self.path, error)

    def _begin_anew(self, error: sqlite3.Error) -> None:
        logger.warning("%s is damaged (%s) and begun anew", self.path, error)
        connection = self._connections.pop(os.getpid(), None)
        if connection is not None:
            connection.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
