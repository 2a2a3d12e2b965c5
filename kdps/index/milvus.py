# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""An index in Milvus: embedded in this process over a local file, or a server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from kdps.errors import KdpsError, one_line
from kdps.footage.moments import Clock
from kdps.index.base import Matches, ModelIdentity
from kdps.index.milvus_rows import (
    FIELDS,
    MAX_KEY,
    MAX_NAME,
    MAX_PATH,
    filter_expression,
    from_rows,
    is_one_of,
    to_rows,
)
from kdps.index.records import SourceRecord
from kdps.index.selection import EVERYTHING, Selection
from kdps.index.sightings import Sightings
from kdps.utils.requirements import require_pymilvus

# The most matches that a Milvus server gives for a query.
MAX_MATCHES = 16384
# Environment variable with the password or token of a server, which has no place in a command line.
TOKEN_VARIABLE = "KDPS_INDEX_TOKEN"
_SIGHTINGS, _SOURCES = "kdps_sightings", "kdps_sources"
# Name of the record that holds the identity of the model; no path is like it.
_MODEL = "kdps://model"
# Milvus Lite looks at all rows for each part of a scan, so that small ones are slow.
_SCAN_ROWS = 10_000
_TIMEOUT = 120.0


def is_address(where: str) -> bool:
    """Whether a place is a server's address, not a local file."""
    return "://" in where


class MilvusIndex:
    """Sightings and the progress on their sources, each in a collection of one Milvus database.

    Made by ``kdps.index.opening``. Whatever fails in Milvus is a one-line ``KdpsError``.

    Attributes:
        where: the file or the server's address.
        identity: of the model that all embeddings are of.
    """

    def __init__(self, where: str, identity: ModelIdentity | None = None) -> None:
        """
        Args:
            where: path of the local file, or address of a server (``http://...``).
            identity: creates the index for this model where there is none.

        Raises:
            KdpsError: the index cannot be opened, is not there and no identity is given, or is one
                of another model.
        """
        self.where = where
        self._pymilvus = require_pymilvus()
        self._loaded: set[str] = set()
        try:
            with self._told():
                self._client = self._pymilvus.MilvusClient(
                    where, token=os.environ.get(TOKEN_VARIABLE, ""), timeout=_TIMEOUT
                )
        except ValueError as error:
            # pymilvus lets through what Python says of an address whose port is none.
            raise KdpsError(f"--index: {where} cannot be opened ({one_line(error)})") from error
        try:
            self.identity = self._open(identity)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the server; write what is in memory to the file and let others open it."""
        self._client.close()
        if not is_address(self.where):
            # The client leaves the embedded server running, and the file locked.
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self.where)

    def __len__(self) -> int:
        return self._count("")

    def upsert(self, sightings: Sightings) -> None:
        """Add sightings; those whose keys are there already are replaced.

        They outlast this process from the moment that this returns.
        """
        if not len(sightings):
            return
        if sightings.embeddings.shape[1] != self.identity.embedding_size:
            raise KdpsError(
                f"{self.where}: holds embeddings of {self.identity.embedding_size} numbers, not of "
                f"{sightings.embeddings.shape[1]}"
            )
        with self._told():
            self._client.upsert(_SIGHTINGS, to_rows(sightings), timeout=_TIMEOUT)

    def remove(self, sources: Sequence[str], after: int) -> None:
        """Remove the sightings of some sources in frames later than ``after``."""
        if sources:
            self._delete(f"{is_one_of('source', sources)} and frame > {after}")

    def remove_selected(self, selection: Selection) -> int:
        """Remove what a selection is about; what is known of its sources stays.

        Returns:
            The number of sightings removed.

        Raises:
            KdpsError: the selection is of everything, or Milvus fails.
        """
        condition = filter_expression(selection)
        if not condition:
            raise KdpsError(f"{self.where}: everything would be removed; delete the index instead")
        removed = self._count(condition)
        self._delete(condition)
        return removed

    def count_undated(self) -> int:
        """Number of sightings without a date."""
        return self._count(f"clock != {int(Clock.DATE)}")

    def search(
        self, queries: np.ndarray, top_k: int, selection: Selection = EVERYTHING
    ) -> list[Matches]:
        """See ``EmbeddingIndex``; at most ``MAX_MATCHES`` matches."""
        with self._told():
            self._load(_SIGHTINGS)
            found = self._client.search(
                _SIGHTINGS,
                data=list(np.asarray(queries, dtype=np.float32)),
                anns_field="embedding",
                filter=filter_expression(selection),
                limit=min(top_k, MAX_MATCHES),
                output_fields=list(FIELDS),
                consistency_level="Strong",
                timeout=_TIMEOUT,
            )
        size = self.identity.embedding_size
        return [
            Matches(
                from_rows([hit["entity"] for hit in hits], size),
                np.array([hit["distance"] for hit in hits], dtype=np.float32),
            )
            for hits in found
        ]

    def scan(self) -> Iterator[Sightings]:
        """All sightings, in parts that fit into memory, in no order."""
        for rows in self._iterate(_SIGHTINGS, list(FIELDS)):
            yield from_rows(rows, self.identity.embedding_size)

    def records(self, sources: Sequence[str]) -> dict[str, SourceRecord]:
        """What is known of some sources; those never begun are missing."""
        if not sources:
            return {}
        with self._told():
            rows = self._query(_SOURCES, is_one_of("source", sources), _RECORD_FIELDS)
        return {row["source"]: _record(row) for row in rows}

    def record(self, records: Sequence[SourceRecord]) -> None:
        """Note progress. What the records speak of has to be in the index."""
        if records:
            rows = [{**vars(record), "unused": [0.0, 0.0]} for record in records]
            with self._told():
                self._client.upsert(_SOURCES, rows, timeout=_TIMEOUT)

    def sources(self) -> list[SourceRecord]:
        """What is known of all sources, sorted by path."""
        records = [_record(row) for rows in self._iterate(_SOURCES, _RECORD_FIELDS) for row in rows]
        return sorted(
            (record for record in records if record.source != _MODEL),
            key=lambda record: record.source,
        )

    def _open(self, identity: ModelIdentity | None) -> ModelIdentity:
        with self._told():
            if identity is not None and not self._client.has_collection(_SOURCES):
                self._create(identity)
            elif not self._client.has_collection(_SOURCES):
                raise KdpsError(f"{self.where}: holds no gallery; kdps gallery build makes one")
            rows = self._query(_SOURCES, is_one_of("source", [_MODEL]), _RECORD_FIELDS)
            if not rows and identity is not None:
                # Whoever created the collections was stopped before the last step.
                self._create(identity)
                rows = self._query(_SOURCES, is_one_of("source", [_MODEL]), _RECORD_FIELDS)
        if not rows:
            raise KdpsError(f"{self.where}: its making was interrupted; build it again")
        found = ModelIdentity(rows[0]["state"], int(rows[0]["frame"]))
        if identity is not None:
            found.require(identity, self.where)
        return found

    def _create(self, identity: ModelIdentity) -> None:
        """Make what is missing. Several processes may do so at once, each with the same outcome."""
        kind = self._pymilvus.DataType
        text, number = kind.VARCHAR, kind.INT64
        # Exact in a file, where it is fast enough; a server chooses by its size.
        exact = not is_address(self.where)
        self._create_collection(
            _SIGHTINGS,
            ("embedding", "FLAT" if exact else "AUTOINDEX", "IP"),
            [
                ("key", text, {"is_primary": True, "max_length": MAX_KEY}),
                ("source", text, {"max_length": MAX_PATH}),
                ("camera", text, {"max_length": MAX_NAME}),
                ("frame", number, {}),
                ("clock", kind.INT8, {}),
                ("time", number, {}),
                ("box", kind.ARRAY, {"element_type": kind.FLOAT, "max_capacity": 4}),
                ("score", kind.FLOAT, {}),
                ("embedding", kind.FLOAT_VECTOR, {"dim": identity.embedding_size}),
            ],
        )
        self._create_collection(
            _SOURCES,
            ("unused", "FLAT", "L2"),
            [
                ("source", text, {"is_primary": True, "max_length": MAX_PATH}),
                ("camera", text, {"max_length": MAX_NAME}),
                ("state", text, {"max_length": MAX_PATH}),
                ("frame", number, {}),
                ("finished", kind.BOOL, {}),
                ("fault", text, {"max_length": MAX_PATH}),
                # Milvus has no collection without a vector.
                ("unused", kind.FLOAT_VECTOR, {"dim": 2}),
            ],
        )
        model = SourceRecord(_MODEL, "", identity.weights, identity.embedding_size, True)
        self.record([model])

    def _create_collection(
        self, name: str, index: tuple[str, str, str], fields: list[tuple[str, Any, dict[str, Any]]]
    ) -> None:
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        for field, kind, options in fields:
            schema.add_field(field, kind, **options)
        params = self._client.prepare_index_params()
        params.add_index(index[0], index_type=index[1], metric_type=index[2])
        try:
            self._client.create_collection(
                name, schema=schema, index_params=params, consistency_level="Strong"
            )
        except self._pymilvus.MilvusException:
            if not self._client.has_collection(name):
                raise

    def _load(self, name: str) -> None:
        if name not in self._loaded:
            self._client.load_collection(name, timeout=_TIMEOUT)
            self._loaded.add(name)

    def _delete(self, condition: str) -> None:
        with self._told():
            self._load(_SIGHTINGS)
            self._client.delete(_SIGHTINGS, filter=condition, timeout=_TIMEOUT)

    def _count(self, condition: str) -> int:
        with self._told():
            rows = self._query(_SIGHTINGS, condition, ["count(*)"])
        return int(rows[0]["count(*)"])

    def _query(self, name: str, condition: str, fields: list[str]) -> list[dict[str, Any]]:
        self._load(name)
        return self._client.query(
            name,
            filter=condition,
            output_fields=fields,
            consistency_level="Strong",
            timeout=_TIMEOUT,
        )

    def _iterate(self, name: str, fields: list[str]) -> Iterator[list[dict[str, Any]]]:
        with self._told():
            self._load(name)
            rows = self._client.query_iterator(
                name, batch_size=_SCAN_ROWS, output_fields=fields, consistency_level="Strong"
            )
            while part := rows.next():
                yield part
            rows.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell what Milvus finds fault with in one line."""
        try:
            yield
        except self._pymilvus.MilvusException as error:
            reason = one_line(error.message or str(error))
            raise KdpsError(f"{self.where}: {reason.rstrip('.')}") from error


_RECORD_FIELDS = ["source", "camera", "state", "frame", "finished", "fault"]


def _record(row: dict[str, Any]) -> SourceRecord:
    return SourceRecord(**{name: row[name] for name in _RECORD_FIELDS})
