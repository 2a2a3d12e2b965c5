# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Sightings as rows of Milvus, and selections as its filter expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdps.index.selection import Selection
from kdps.index.sightings import Sightings

# Longest text in bytes. A path of Linux has at most 4096, a key 32.
MAX_PATH, MAX_NAME, MAX_KEY = 4096, 1024, 32
# Column of Sightings -> field of a row, which has one value of it.
_FIELDS = {
    "keys": "key",
    "sources": "source",
    "cameras": "camera",
    "frames": "frame",
    "clocks": "clock",
    "times": "time",
    "boxes": "box",
    "scores": "score",
    "embeddings": "embedding",
}
FIELDS = tuple(_FIELDS.values())
_TYPES = {
    "frames": np.int64,
    "clocks": np.int8,
    "times": np.int64,
    "boxes": np.float32,
    "scores": np.float32,
    "embeddings": np.float32,
}


def to_rows(sightings: Sightings) -> list[dict[str, Any]]:
    """One dict for each sighting."""
    columns = {
        # Vectors may stay arrays, which are sent faster; all else has to be Python's.
        field: list(values) if name == "embeddings" else values.tolist()
        for name, field in _FIELDS.items()
        for values in [getattr(sightings, name)]
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def from_rows(rows: Sequence[Mapping[str, Any]], embedding_size: int) -> Sightings:
    """The inverse of ``to_rows``."""
    widths = {"boxes": (4,), "embeddings": (embedding_size,)}
    columns = {}
    for name, field in _FIELDS.items():
        values = [row[field] for row in rows]
        kind = _TYPES.get(name, np.str_)
        columns[name] = np.array(values, dtype=kind).reshape(len(rows), *widths.get(name, ()))
    return Sightings(**columns)


def is_one_of(field: str, values: Sequence[str]) -> str:
    """The expression that a field has one of some values."""
    return f"{field} in [{', '.join(map(_quoted, values))}]"


def filter_expression(selection: Selection) -> str:
    """The filter expression of a selection; empty if it selects all."""
    parts = []
    if selection.cameras:
        parts.append(is_one_of("camera", selection.cameras))
    for bound, sign in ((selection.start, ">="), (selection.end, "<=")):
        if bound:
            parts.append(f"clock == {int(bound.clock)}")
            parts.append(f"time {sign} {bound.microseconds}")
    if selection.without:
        parts.append(f"not ({is_one_of('source', selection.without)})")
    return " and ".join(parts)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
