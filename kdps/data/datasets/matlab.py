# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Reading MATLAB annotation files, with errors that name the file and the variable."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from scipy.io import loadmat

from kdps.data.datasets.files import reading
from kdps.errors import KdpsError, one_line

# Kinds of arrays in which the reader returns what are no numbers.
_KINDS = {"O": "cells", "U": "text", "V": "structs", "c": "complex numbers"}


def load_variable(path: str | Path, *names: str) -> np.ndarray:
    """The first of the variables ``names`` that the file holds.

    Raises:
        KdpsError: the file cannot be read, or holds none of them.
    """
    with reading(path), open(path, "rb") as file:
        content = _load(path, file, names)
    for name in names:
        if name in content:
            return content[name]
    held = ", ".join(sorted(k for k in content if not k.startswith("__"))) or "nothing"
    wanted = " or ".join(repr(name) for name in names)
    raise KdpsError(f"{path} has no variable {wanted}; it holds {held}")


def _load(path: str | Path, file: BinaryIO, names: tuple[str, ...]) -> dict[str, Any]:
    try:
        content = loadmat(file, variable_names=names)
        if not any(name in content for name in names):
            file.seek(0)
            content = loadmat(file)  # to name what it holds instead
    except Exception as error:  # a damaged file makes SciPy's reader fail with almost anything
        reason = one_line(error)
        raise KdpsError(f"{path} is truncated or no MATLAB file ({reason})") from error
    return content


def unwrap(value: Any) -> Any:
    """Take the 1x1 cells and structs that MATLAB puts around a value away."""
    while isinstance(value, np.ndarray) and value.size == 1 and value.dtype == object:
        value = value.reshape(-1)[0]
    return value


def as_text(value: Any) -> str:
    """The string in a MATLAB char array, however deep its cells."""
    value = unwrap(value)
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size else ""
    return str(value)


def as_numbers(value: Any, where: str) -> np.ndarray:
    """The numbers in a MATLAB matrix, in float64.

    MATLAB keeps whole numbers in the smallest integer type, often uint8, where x + width wraps at
    256.

    Raises:
        KdpsError: it is a matrix of something else, cells for example.
    """
    array = np.asarray(unwrap(value))
    if array.dtype.kind not in "biuf":
        kind = _KINDS.get(array.dtype.kind, "something else")
        raise KdpsError(f"{where} should hold numbers, it holds {kind}")
    return array.astype(np.float64)
