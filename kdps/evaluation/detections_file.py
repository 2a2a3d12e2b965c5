# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The detections file: an ``.npz`` that stands between any detector and the evaluator.

Arrays are the fields of ``kdps.structures.Detections``; ``meta`` is a JSON text. Whoever writes
such a file with another code base can have it scored here.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from kdps.checkpoint.files import atomic_write
from kdps.errors import KdpsError, one_line
from kdps.structures.detections import Detections

_REQUIRED = ("names", "det_count", "det", "emb", "query_emb")
_OPTIONAL_GROUPS = (("gt_count", "gt_emb"), ("qdet_count", "qdet", "qdet_emb"))
# Embeddings stored in half precision or on a coarse grid still count as unit rows.
_NORM_TOLERANCE = 0.01
# No image is that large, and areas of larger boxes have no digits left in float32.
_MAX_COORDINATE = 1_000_000
# Products of float32 numbers may end above 1 by a rounding.
_MAX_SCORE = 1 + 1e-5


def save_detections(detections: Detections, path: str | Path) -> None:
    """Write a detections file into an existing folder; a reader never sees it half written.

    Raises:
        KdpsError: the detections are not valid, or the file cannot be written.
    """
    check_detections(detections, Path(path).name)
    arrays: dict[str, Any] = {
        "names": np.array(detections.names, dtype=np.str_),
        "meta": np.array(json.dumps(detections.meta)),
    }
    for name in (*_REQUIRED[1:], *(name for group in _OPTIONAL_GROUPS for name in group)):
        value = getattr(detections, name)
        if value is not None:
            arrays[name] = value
    with atomic_write(path) as file:
        np.savez(file, **arrays)


def load_detections(path: str | Path) -> Detections:
    """Read and validate a detections file.

    Raises:
        KdpsError: the file is missing or broken, or an array is absent, misspelt, of the wrong
            shape, not finite, or holds rows that are not of unit length.
    """
    arrays = _read_arrays(Path(path))
    _refuse_misspelt(arrays, path)
    for name in _REQUIRED:
        if name not in arrays:
            raise KdpsError(f"{path}: array '{name}' is missing")
    for group in _OPTIONAL_GROUPS:
        present = [name for name in group if name in arrays]
        if present and len(present) < len(group):
            missing = next(name for name in group if name not in arrays)
            raise KdpsError(f"{path}: array '{missing}' is missing beside '{present[0]}'")
    names = arrays["names"]
    if names.ndim != 1 or names.dtype.kind != "U":
        raise KdpsError(f"{path}: 'names' must be one row of text, got {_shape(names)}")

    def counts(name: str) -> np.ndarray:
        # Of other types only to be refused by check_detections.
        value = arrays[name]
        return value.astype(np.int64) if value.dtype.kind in "iu" else value

    def floats(name: str) -> np.ndarray:
        if arrays[name].dtype.kind != "f":
            raise KdpsError(f"{path}: '{name}' must hold floats, got {arrays[name].dtype}")
        return arrays[name].astype(np.float32, copy=False)

    detections = Detections(
        names=tuple(names.tolist()),
        det_count=counts("det_count"),
        det=floats("det"),
        emb=floats("emb"),
        query_emb=floats("query_emb"),
        gt_count=counts("gt_count") if "gt_count" in arrays else None,
        gt_emb=floats("gt_emb") if "gt_emb" in arrays else None,
        qdet_count=counts("qdet_count") if "qdet_count" in arrays else None,
        qdet=floats("qdet") if "qdet" in arrays else None,
        qdet_emb=floats("qdet_emb") if "qdet_emb" in arrays else None,
        meta=_read_meta(arrays.get("meta"), path),
    )
    check_detections(detections, str(path))
    return detections


def _refuse_misspelt(arrays: Iterable[str], path: str | Path) -> None:
    """Writers may add arrays of their own, but none that looks like an optional one."""
    known = [*_REQUIRED, *(name for group in _OPTIONAL_GROUPS for name in group), "meta"]
    for name in sorted(set(arrays) - set(known)):
        similar = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.8)
        if similar:
            raise KdpsError(f"{path}: array '{name}' is unknown; '{similar[0]}' is its right name")


def check_detections(detections: Detections, source: str) -> None:
    """Validate shapes, counts, numbers and norms of detections.

    Args:
        detections: what to check.
        source: where they come from; the message begins with it.

    Raises:
        KdpsError: one line that names the source, the array and the first row at fault.
    """

    def fail(message: str) -> NoReturn:
        raise KdpsError(f"{source}: {message}")

    d = detections
    duplicates = len(d.names) - len(set(d.names))
    if duplicates:
        seen: set[str] = set()
        name = next(n for n in d.names if n in seen or seen.add(n))  # type: ignore[func-returns-value]
        fail(f"'names' lists {name!r} more than once")
    if d.query_emb.ndim != 2:
        fail(f"'query_emb' must be of shape (Q, D), got {_shape(d.query_emb)}")
    dim = d.query_emb.shape[1]
    num_images, num_queries = len(d.names), len(d.query_emb)
    embedded = d.query_emb.any(axis=1)  # a row of zeros is a query without an embedding
    _check_embeddings("query_emb", d.query_emb, num_queries, dim, fail, embedded)
    total = _check_counts("det_count", d.det_count, num_images, fail)
    _check_boxes("det", d.det, total, fail)
    _check_embeddings("emb", d.emb, total, dim, fail)
    if d.gt_count is not None and d.gt_emb is not None:
        total = _check_counts("gt_count", d.gt_count, num_images, fail)
        _check_embeddings("gt_emb", d.gt_emb, total, dim, fail)
    if d.qdet_count is not None and d.qdet is not None and d.qdet_emb is not None:
        total = _check_counts("qdet_count", d.qdet_count, num_queries, fail)
        _check_boxes("qdet", d.qdet, total, fail)
        _check_embeddings("qdet_emb", d.qdet_emb, total, dim, fail)


_Fail = Callable[[str], NoReturn]


def _check_counts(name: str, counts: np.ndarray, length: int, fail: _Fail) -> int:
    if counts.dtype.kind not in "iu" or counts.shape != (length,):
        fail(f"'{name}' must be {length} whole numbers, got {_shape(counts)}")
    if counts.size and counts.min() < 0:
        fail(f"'{name}' is negative at row {int(np.argmin(counts))}")
    return int(counts.sum(dtype=np.int64))


def _check_boxes(name: str, boxes: np.ndarray, rows: int, fail: _Fail) -> None:
    if boxes.shape != (rows, 5):
        fail(f"'{name}' must be of shape ({rows}, 5) by '{name}_count', got {_shape(boxes)}")
    _fail_at(~np.isfinite(boxes).all(axis=1), f"'{name}' is not finite", fail)
    far = np.abs(boxes[:, :4]).max(axis=1) > _MAX_COORDINATE
    _fail_at(far, f"'{name}' lies beyond {_MAX_COORDINATE:,} pixels", fail)
    flat = (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
    _fail_at(flat, f"'{name}' is not a box x1 y1 x2 y2 (x2 < x1 or y2 < y1)", fail)
    _fail_at(
        (boxes[:, 4] < 0) | (boxes[:, 4] > _MAX_SCORE), f"'{name}' has a score outside 0 to 1", fail
    )


def _check_embeddings(
    name: str,
    emb: np.ndarray,
    rows: int,
    dim: int,
    fail: _Fail,
    present: np.ndarray | bool = True,
) -> None:
    if emb.shape != (rows, dim):
        fail(f"'{name}' must be of shape ({rows}, {dim}), got {_shape(emb)}")
    _fail_at(~np.isfinite(emb).all(axis=1), f"'{name}' is not finite", fail)
    norms = np.sqrt(np.einsum("ij,ij->i", emb, emb))
    wrong = present & (np.abs(norms - 1) > _NORM_TOLERANCE)
    _fail_at(wrong, f"'{name}' is not of unit length", fail)


def _fail_at(faulty: np.ndarray, message: str, fail: _Fail) -> None:
    if faulty.any():
        fail(f"{message} at row {int(np.argmax(faulty))}")


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise KdpsError(f"{path}: one array, not a detections file (.npz)")
        with file:
            return {name: _read_array(file, name, path) for name in file.files}
    except KdpsError:
        raise
    except OSError as error:
        raise KdpsError(f"{path}: cannot be read ({error.strerror or 'broken file'})") from error
    except Exception as error:  # a damaged archive makes its readers fail with almost anything
        raise KdpsError(f"{path}: not a detections file (.npz of plain arrays)") from error


def _read_array(file: np.lib.npyio.NpzFile, name: str, path: Path) -> np.ndarray:
    try:
        return file[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise KdpsError(
            f"{path}: '{name}' holds Python objects; names are np.array(names, dtype=str), "
            "meta is np.array(json.dumps(meta))"
        ) from error


def _read_meta(value: np.ndarray | None, path: str | Path) -> dict[str, Any]:
    if value is None:
        return {}
    try:
        meta = json.loads(str(value), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise KdpsError(f"{path}: 'meta' is not JSON ({one_line(error)})") from error
    if not isinstance(meta, dict):
        raise KdpsError(f"{path}: 'meta' must be a JSON object")
    return meta


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which no JSON has")


def _shape(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"
