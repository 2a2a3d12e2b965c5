# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""PRW (Zheng et al., "Person Re-identification in the Wild", CVPR 2017)."""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np

from kdps.data.datasets.files import (
    read_text,
    reading,
    require_entries,
    require_split,
    require_unique,
)
from kdps.data.datasets.images import fill_image_sizes
from kdps.data.datasets.mat_elements import MatFileError, UnreadMatrixError, load_variables
from kdps.data.datasets.matlab import as_numbers, as_text, load_variable
from kdps.data.galleries import open_gallery_protocol
from kdps.data.protocol import Query, SearchProtocol
from kdps.data.records import (
    UNLABELLED,
    attach_queries,
    make_annotation,
    renumber_identities,
)
from kdps.errors import KdpsError

UNLABELLED_IN_FILE = -2
# Files of earlier releases lie beside newer ones in the same file; the first name wins.
BOX_VARIABLES = ("box_new", "anno_file", "anno_previous")
QUERY_FILE = "query_info.txt"
_CAMERA = re.compile(r"c(\d+)s")


def load_prw(root: str | Path, split: str, *, image_sizes: bool = True) -> list[dict[str, Any]]:
    """Records of PRW.

    Args:
        root: folder that holds ``frames``, ``annotations`` and ``frame_{train,test}.mat``.
        split: "train" (identities renumbered to 0..482, in the order of their numbers) or "test"
            (PRW's own numbers, with the queries attached).
        image_sizes: read the size of each frame from its header; without it the frames need not
            be there.

    Raises:
        KdpsError: a file is missing, damaged or contradicts another one.
    """
    require_split(split)
    root = Path(root)
    records = _read_frames(root, split)
    if split == "train":
        renumber_identities(records)
    else:
        attach_queries(records, _make_protocol(root, records, "prw_test"))
    if image_sizes:
        fill_image_sizes(records, root)
    return records


def load_prw_protocol(root: str | Path, *, name: str = "prw_test") -> SearchProtocol:
    """Each query against all test frames but its own; no frame image is needed.

    Frames of the query's own camera are in its gallery, as in the public evaluations.

    Args:
        root: folder that holds ``annotations``, ``frame_test.mat`` and ``query_info.txt``.
        name: the protocol's name.

    Raises:
        KdpsError: a file is missing, damaged or contradicts another one.
    """
    root = Path(root)
    return _make_protocol(root, _read_frames(root, "test"), name)


def read_prw_rows(root: str | Path, split: str) -> dict[str, np.ndarray]:
    """Name of each image of a split -> its (N, 5) float64 rows [id x y w h], as in the file."""
    root = require_entries(root, ("annotations",), "PRW")
    path = root / f"frame_{split}.mat"
    frames = [as_text(cell) for cell in load_variable(path, f"img_index_{split}").reshape(-1)]
    require_unique(frames, path)
    for frame in frames:
        if not _CAMERA.match(frame):
            raise KdpsError(f"{path}: frame {frame!r} does not begin with c<camera>s<sequence>")
    return {f"{f}.jpg": _read_rows(root / "annotations" / f"{f}.jpg.mat") for f in frames}


def read_prw_queries(root: str | Path, images: Container[str]) -> list[Query]:
    """The queries, in file order; each must be in one of the test ``images``."""
    path = Path(root) / QUERY_FILE
    queries = []
    # The published file has CRLF line ends, a re-saved one may have LF.
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            pid, x, y, w, h, frame = line.split()
            values = np.array([float(x), float(y), float(w), float(h)])
            person_id = int(pid)
        except ValueError:
            raise KdpsError(f"{where}: expected 'id x y w h frame', found {line!r}") from None
        if not np.isfinite(values).all():
            raise KdpsError(f"{where}: a coordinate is no number: {line!r}")
        if f"{frame}.jpg" not in images:
            raise KdpsError(f"{where}: frame {frame!r} is not in frame_test.mat")
        # Unlike an annotation, a query is clipped after its width was added.
        values[2:] += values[:2]
        x1, y1, x2, y2 = map(float, np.trunc(values).clip(min=0))
        queries.append(Query(f"{frame}.jpg", (x1, y1, x2, y2), person_id))
    if not queries:
        raise KdpsError(f"{path} lists no queries")
    return queries


def _make_protocol(root: Path, records: list[dict[str, Any]], name: str) -> SearchProtocol:
    images = {record["image_id"] for record in records}
    return open_gallery_protocol(name, records, read_prw_queries(root, images))


def _read_frames(root: Path, split: str) -> list[dict[str, Any]]:
    return [
        {
            "file_name": str(root / "frames" / name),
            "image_id": name,
            "cam_id": int(_CAMERA.match(name)[1]),
            "annotations": _make_annotations(rows),
        }
        for name, rows in read_prw_rows(root, split).items()
    ]


def _load_rows(path: Path) -> np.ndarray:
    with reading(path):
        content = path.read_bytes()
    try:
        variables = load_variables(content)
    except UnreadMatrixError:
        variables = {}
    except MatFileError as error:
        raise KdpsError(f"{path} is truncated or no MATLAB file ({error})") from error
    found = [variables[name] for name in BOX_VARIABLES if name in variables]
    # SciPy reads what is unusual; the other reader is the faster one for thousands of small files.
    return found[0] if found else load_variable(path, *BOX_VARIABLES)


def _read_rows(path: Path) -> np.ndarray:
    rows = _load_rows(path)
    if rows.size == 0:
        return np.zeros((0, 5))
    rows = as_numbers(rows, f"{path}: the array of boxes")
    if rows.ndim != 2 or rows.shape[1] != 5:
        raise KdpsError(f"{path}: rows should be [id x y w h], the array has shape {rows.shape}")
    if not np.isfinite(rows).all():
        bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise KdpsError(f"{path}: row {bad} holds a value that is no number: {rows[bad].tolist()}")
    pids = rows[:, 0]
    known = (pids == np.trunc(pids)) & ((pids > 0) | (pids == UNLABELLED_IN_FILE))
    if not known.all():
        raise KdpsError(f"{path}: unknown identity {pids[~known][0]:g} (known: -2 and 1 upwards)")
    return rows


def _make_annotations(rows: np.ndarray) -> list[dict[str, Any]]:
    pids = rows[:, 0].astype(np.int64)
    pids[pids == UNLABELLED_IN_FILE] = UNLABELLED
    # In this order in the public readers: a box that begins left of the frame is cut there before
    # its width is added, so that its right edge moves outwards.
    boxes = rows[:, 1:].clip(min=0)
    boxes[:, 2:] += boxes[:, :2]
    boxes = boxes.astype(np.int64)
    return [make_annotation(b, p) for b, p in zip(boxes.tolist(), pids.tolist(), strict=True)]
