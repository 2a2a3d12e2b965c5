# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""PRW (Zheng et al., "Person Re-identification in the Wild", CVPR 2017)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from kdps.data.datasets.files import read_text, require_entries, require_split, require_unique
from kdps.data.datasets.images import fill_image_sizes
from kdps.data.datasets.matlab import as_text, load_variable
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
    root = _require_root(root)
    records = _read_frames(root, split)
    if split == "train":
        renumber_identities(records)
    else:
        attach_queries(records, _make_protocol(root, records, "prw_test"))
    if image_sizes:
        fill_image_sizes(records)
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
    root = _require_root(root)
    return _make_protocol(root, _read_frames(root, "test"), name)


def read_prw_frames(root: str | Path, split: str) -> list[dict[str, Any]]:
    """Records of a split with PRW's own identity numbers, without queries and image sizes."""
    return _read_frames(_require_root(root), split)


def _require_root(root: str | Path) -> Path:
    return require_entries(root, ("annotations",), "PRW")


def _make_protocol(root: Path, records: list[dict[str, Any]], name: str) -> SearchProtocol:
    frames = {record["image_id"] for record in records}
    return open_gallery_protocol(name, records, _read_queries(root / QUERY_FILE, frames))


def _read_frames(root: Path, split: str) -> list[dict[str, Any]]:
    path = root / f"frame_{split}.mat"
    frames = [as_text(cell) for cell in load_variable(path, f"img_index_{split}").reshape(-1)]
    require_unique(frames, path)
    records = []
    for frame in frames:
        camera = re.match(r"c(\d+)s", frame)
        if camera is None:
            raise KdpsError(f"{path}: frame {frame!r} does not begin with c<camera>s<sequence>")
        rows = _read_rows(root / "annotations" / f"{frame}.jpg.mat")
        records.append(
            {
                "file_name": str(root / "frames" / f"{frame}.jpg"),
                "image_id": f"{frame}.jpg",
                "cam_id": int(camera[1]),
                "annotations": [make_annotation(box, pid) for pid, box in rows],
            }
        )
    return records


def _read_rows(path: Path) -> list[tuple[int, list[int]]]:
    rows = load_variable(path, *BOX_VARIABLES)
    if rows.size == 0:
        return []
    if rows.ndim != 2 or rows.shape[1] != 5:
        raise KdpsError(f"{path}: rows should be [id x y w h], the array has shape {rows.shape}")
    rows = rows.astype(np.float64)
    if not np.isfinite(rows).all():
        bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise KdpsError(f"{path}: row {bad} holds a value that is no number: {rows[bad].tolist()}")
    pids = rows[:, 0].astype(np.int64)
    known = (pids > 0) | (pids == UNLABELLED_IN_FILE)
    if not known.all():
        raise KdpsError(f"{path}: unknown identity {pids[~known][0]} (known: -2 and 1 upwards)")
    # In this order in the public readers: a box that begins left of the frame is cut there before
    # its width is added, so that its right edge moves outwards.
    boxes = rows[:, 1:].clip(min=0)
    boxes[:, 2:] += boxes[:, :2]
    boxes = boxes.astype(np.int64)
    pids[pids == UNLABELLED_IN_FILE] = UNLABELLED
    return list(zip(pids.tolist(), boxes.tolist(), strict=True))


def _read_queries(path: Path, frames: set[str]) -> list[Query]:
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
        if f"{frame}.jpg" not in frames:
            raise KdpsError(f"{where}: frame {frame!r} is not in frame_test.mat")
        # Unlike an annotation, a query is clipped after its width was added.
        values[2:] += values[:2]
        x1, y1, x2, y2 = map(float, np.trunc(values).clip(min=0))
        queries.append(Query(f"{frame}.jpg", (x1, y1, x2, y2), person_id))
    if not queries:
        raise KdpsError(f"{path} lists no queries")
    return queries
