# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Running an ONNX file, for which no exporter has to be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdps.errors import KdpsError, one_line
from kdps.utils.requirements import require_onnxruntime

# Name of the entry of an ONNX file's metadata that holds the hash of its weights.
WEIGHTS_ENTRY = "kdps_weights_sha256"


def open_session(path: Path) -> Any:
    """An onnxruntime session on the CPU.

    Raises:
        KdpsError: the file cannot be read, or onnxruntime is missing.
    """
    runtime = require_onnxruntime()
    if not path.is_file():
        raise KdpsError(f"{path}: does not exist")
    try:
        return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    # Its exceptions have no common base but this.
    except Exception as error:
        raise KdpsError(f"{path}: cannot be read as ONNX ({one_line(error)})") from error
