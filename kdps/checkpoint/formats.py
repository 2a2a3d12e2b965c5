# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Reading weight files without running code that they may contain."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from kdps.errors import KdpsError, one_line

# What a pickle of nested containers of NumPy arrays refers to; NumPy renamed its core in 2.0.
_ARRAY_GLOBALS = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and containers, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_GLOBALS:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is no array")
        return super().find_class(module, name)


def read_weights(path: str | Path, *, lazily: bool = False) -> dict[str, Any]:
    """Read a checkpoint: ``.pkl`` of arrays, or any file of ``torch.save``.

    Args:
        path: a local file.
        lazily: map tensors into memory instead of reading them (``torch.save`` files only).

    Returns:
        the dict in the file; tensors on the CPU.

    Raises:
        KdpsError: the file is missing, damaged, or holds something else than weights.
    """
    path = Path(path)
    if not path.is_file():
        raise KdpsError(f"{path}: no such file")
    try:
        if path.suffix == ".pkl":
            with open(path, "rb") as stream:
                content = _ArrayUnpickler(stream, encoding="latin1").load()
        else:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)
    except Exception as error:  # unpickling damaged bytes raises nearly anything
        raise KdpsError(f"{path}: not a readable checkpoint ({one_line(error)})") from error
    if not isinstance(content, dict):
        raise KdpsError(f"{path}: holds a {type(content).__name__}, not a dict of weights")
    return content
