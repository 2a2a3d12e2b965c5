# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""MATLAB files in the shapes that the person-search sets use, equal byte for byte on each run."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

# The first 116 bytes of a MATLAB 5 file are free text; scipy puts the time of day there.
HEADER = b"MATLAB 5.0 MAT-file, written by kdps".ljust(116)


def write_mat(path: Path, variables: dict[str, Any]) -> None:
    """Write variables to a MATLAB 5 file whose bytes depend on nothing but the values."""
    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=True)
    data = bytearray(buffer.getvalue())
    data[: len(HEADER)] = HEADER
    path.write_bytes(data)


def struct_array(fields: Sequence[str], rows: Iterable[Sequence[Any]]) -> np.ndarray:
    """A 1 x n MATLAB struct array; each row gives the values of ``fields`` in order."""
    rows = list(rows)
    array = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
    for i, row in enumerate(rows):
        array[0, i] = tuple(row)
    return array


def cell_column(items: Sequence[Any]) -> np.ndarray:
    """An n x 1 MATLAB cell array."""
    array = np.empty((len(items), 1), dtype=object)
    for i, item in enumerate(items):
        array[i, 0] = item
    return array


def scalar(value: int) -> np.ndarray:
    """A count as MATLAB keeps it: (1, 1) uint8, which ends at 255, or else uint16."""
    return np.array([[value]], dtype=np.uint8 if value <= 255 else np.uint16)


def box(xywh: Sequence[int]) -> np.ndarray:
    """A box as CUHK-SYSU stores it: (1, 4) uint8 if all values fit, else uint16."""
    return np.array([xywh], dtype=np.uint8 if max(xywh) <= 255 else np.uint16)
