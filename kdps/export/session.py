# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Running an ONNX file, for which no exporter has to be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdps.errors import KdpsError, one_line
from kdps.utils.requirements import require_onnxruntime

# Name of the entry of an ONNX file's metadata that holds the hash of its weights.
WEIGHTS_ENTRY = "kdps_weights_sha256"


def open_session(path: Path, threads: int = 0) -> Any:
    """An onnxruntime session on the CPU.

    Args:
        path: of the file.
        threads: that compute; 0 leaves their number to onnxruntime.

    Raises:
        KdpsError: the file cannot be read, or onnxruntime is missing.
    """
    runtime = require_onnxruntime()
    if not path.is_file():
        raise KdpsError(f"{path}: does not exist")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # Its exceptions have no common base but this.
    except Exception as error:
        raise KdpsError(f"{path}: cannot be read as ONNX ({one_line(error)})") from error
