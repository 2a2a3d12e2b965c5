# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""CUHK-SYSU (Xiao et al., "Joint Detection and Identification Feature Learning", CVPR 2017)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kdps.data.datasets.files import (
    list_folder,
    require_entries,
    require_split,
    require_unique,
)
from kdps.data.datasets.images import fill_image_sizes
from kdps.data.datasets.matlab import as_numbers, as_text, load_variable, unwrap
from kdps.data.galleries import NO_IMAGES
from kdps.data.protocol import Gallery, Query, SearchProtocol
from kdps.data.records import UNLABELLED, attach_queries, make_annotation
from kdps.errors import KdpsError

logger = logging.getLogger(__name__)

GALLERY_SIZES = (50, 100, 500, 1000, 2000, 4000)
TRAIN_TEST = Path("annotation/test/train_test")
IMAGES_MAT = Path("annotation/Images.mat")
POOL_MAT = Path("annotation/pool.mat")

Box = tuple[int, ...]  # x, y, width, height
Place = tuple[str, Box]  # name of an image and a box in it
# Name of an image -> its boxes in file order and their identities.
_Boxes = dict[str, tuple[list[Box], list[int]]]


def load_cuhk_sysu(
    root: str | Path, split: str, *, image_sizes: bool = True
) -> list[dict[str, Any]]:
    """Records of CUHK-SYSU.

    Identities are those of ``Train.mat`` in its order (0 to 5531) in training; in the test set
    they are the numbers in the queries' names ("p11203" is 11203). A box belongs to an identity
    if it equals one of the identity's boxes exactly; boxes without area are dropped.

    Args:
        root: folder that holds ``annotation`` and ``Image/SSM``.
        split: "train" or "test" (the gallery pool, with the queries attached).
        image_sizes: read the size of each image from its header; without it the images need not
            be there.

    Raises:
        KdpsError: a file is missing, damaged or contradicts another one.
    """
    require_split(split)
    root = _require_root(root)
    boxes = {name: (own, [UNLABELLED] * len(own)) for name, own in read_image_boxes(root).items()}
    pool = _read_pool(root)
    protocol = None
    if split == "train":
        in_pool = set(pool)
        names = sorted(name for name in boxes if name not in in_pool)
        if not names:
            raise KdpsError(f"the training split is empty: {root / POOL_MAT} lists all images")
        for pid, (_, places) in enumerate(read_train_identities(root)):
            _assign(boxes, places, pid, root / TRAIN_TEST / "Train.mat")
    else:
        names = pool
        # The lists of all sizes hold the same queries and truths; the shortest loads fastest.
        size = available_gallery_sizes(root)[0]
        protocol = _read_protocol(root, size, pool, f"g{size}")
        for pid, places in query_identities(protocol):
            _assign(boxes, places, pid, protocol_file(root, size))
    records = [_make_record(root, name, boxes, pool_mat=root / POOL_MAT) for name in names]
    if protocol is not None:
        attach_queries(records, protocol)
    if image_sizes:
        fill_image_sizes(records, root)
    return records


def load_cuhk_sysu_protocol(
    root: str | Path, gallery_size: int | None = 100, *, name: str = "cuhk_sysu_test"
) -> SearchProtocol:
    """Queries and galleries of ``TestG<gallery_size>.mat``; no image is needed.

    Galleries keep images that are listed twice and lists that hold the query's own image, as the
    published files have them.

    Args:
        root: folder that holds ``annotation``.
        gallery_size: None stands for 100, the usual size, or for the largest list below it where a
            small set has no list of 100.
        name: what the protocol's name begins with.

    Raises:
        KdpsError: the file is missing or damaged, or names an image outside the pool.
    """
    root = _require_root(root)
    if gallery_size is None:
        sizes = available_gallery_sizes(root)
        gallery_size = max([size for size in sizes if size <= 100], default=sizes[0])
    return _read_protocol(root, gallery_size, _read_pool(root), f"{name}_g{gallery_size}")


def available_gallery_sizes(root: str | Path) -> list[int]:
    """The gallery sizes whose list is in the set, ascending."""
    folder = _require_root(root) / TRAIN_TEST
    found = [re.fullmatch(r"TestG(\d+)\.mat", path.name) for path in list_folder(folder)]
    sizes = sorted(int(match[1]) for match in found if match)
    if not sizes:
        raise KdpsError(f"{folder} has no TestG<size>.mat, the lists of queries and galleries")
    return sizes


def protocol_file(root: str | Path, gallery_size: int) -> Path:
    """Path of the list of queries and galleries of one size."""
    return Path(root) / TRAIN_TEST / f"TestG{gallery_size}.mat"


def read_image_boxes(root: str | Path) -> dict[str, list[Box]]:
    """Name of each image -> its boxes, in file order; boxes without area are left out."""
    path = Path(root) / IMAGES_MAT
    images = _struct(load_variable(path, "Img"), ("imname", "box"), str(path), size=None)
    boxes = {}
    dropped = 0
    names = [as_text(row["imname"]) for row in images]
    require_unique(names, path)
    for name, row in zip(names, images, strict=True):
        where = f"{path}, image {name}"
        rows = _struct(row["box"], ("idlocate",), where, size=None)
        found = [_box(r["idlocate"], where) for r in rows]
        boxes[name] = [b for b in found if b[2] > 0 and b[3] > 0]
        dropped += len(found) - len(boxes[name])
    if dropped:
        logger.info("%s: dropped %d boxes without area", path, dropped)
    return boxes


def read_train_identities(root: str | Path) -> Iterator[tuple[str, list[Place]]]:
    """Name of each training identity and where it is, in file order."""
    path = Path(root) / TRAIN_TEST / "Train.mat"
    cells = load_variable(path, "Train").reshape(-1)
    if not len(cells):
        raise KdpsError(f"{path} lists no identities")
    for row, cell in enumerate(cells):
        where = f"{path}, Train({row + 1})"
        identity = _struct(cell, ("idname", "scene"), where)
        scenes = _struct(identity["scene"], ("imname", "idlocate"), where, size=None)
        yield (
            as_text(identity["idname"]),
            [(as_text(s["imname"]), _box(s["idlocate"], where)) for s in scenes],
        )


def query_identities(protocol: SearchProtocol) -> Iterator[tuple[int, list[Place]]]:
    """Identity of each query and where it is, the query's own place first."""
    for query, gallery in zip(protocol.queries, protocol.galleries, strict=True):
        truths = zip(gallery.truth_images, gallery.truth_boxes, strict=True)
        places = [(query.image, _xyxy_to_xywh(query.bbox))]
        places += [(protocol.images[i], _xyxy_to_xywh(tuple(box))) for i, box in truths]
        yield query.person_id, places


def _require_root(root: str | Path) -> Path:
    return require_entries(root, ("annotation", str(TRAIN_TEST)), "CUHK-SYSU")


def _struct(value: Any, fields: tuple[str, ...], where: str, size: int | None = 1) -> Any:
    """The MATLAB struct (``size`` 1) or the flat struct array in ``value``."""
    value = np.asarray(unwrap(value))
    missing = [name for name in fields if name not in (value.dtype.names or ())]
    if missing and value.size:
        raise KdpsError(f"{where} has no field {missing[0]!r}")
    flat = value.reshape(-1)
    if size is None:
        return flat
    if len(flat) != size:
        raise KdpsError(f"{where} should be one struct, not {len(flat)}")
    return flat[0]


def _box(value: Any, where: str) -> Box:
    raw = as_numbers(value, f"{where}: idlocate").reshape(-1)
    if len(raw) != 4:
        raise KdpsError(f"{where}: idlocate should hold 4 numbers, it holds {len(raw)}")
    if not np.isfinite(raw).all():
        raise KdpsError(f"{where}: idlocate holds a value that is no number: {raw.tolist()}")
    return tuple(raw.astype(np.int64).tolist())


def _read_pool(root: Path) -> list[str]:
    path = root / POOL_MAT
    names = [as_text(cell) for cell in load_variable(path, "pool").reshape(-1)]
    require_unique(names, path)
    return names


def _assign(boxes: _Boxes, places: list[Place], pid: int, source: Path) -> None:
    for name, box in places:
        if name not in boxes:
            raise KdpsError(f"{source} names image {name!r}, which Images.mat does not list")
        in_image, pids = boxes[name]
        # Published readers pass over a box that Images.mat does not have; so does this one, and
        # `kdps data check` names it.
        if box in in_image:
            pids[in_image.index(box)] = pid


def _make_record(root: Path, name: str, boxes: _Boxes, pool_mat: Path) -> dict[str, Any]:
    if name not in boxes:
        raise KdpsError(f"{pool_mat} names image {name!r}, which Images.mat does not list")
    return {
        "file_name": str(root / "Image" / "SSM" / name),
        "image_id": name,
        "cam_id": 0,
        "annotations": [
            make_annotation(_xywh_to_xyxy(box), pid) for box, pid in zip(*boxes[name], strict=True)
        ],
    }


def _read_protocol(root: Path, gallery_size: int, pool: list[str], name: str) -> SearchProtocol:
    path = protocol_file(root, gallery_size)
    rows = _struct(
        load_variable(path, path.stem), ("Query", "Gallery"), f"{path}, {path.stem}", size=None
    )
    if not len(rows):
        raise KdpsError(f"{path} lists no queries")
    index_of = {name: index for index, name in enumerate(pool)}
    queries, galleries = [], []
    for number, row in enumerate(rows):
        where = f"{path}, query {number}"
        query = _struct(row["Query"], ("imname", "idlocate", "idname"), where)
        identity = re.fullmatch(r"p(\d+)", as_text(query["idname"]))
        if identity is None:
            raise KdpsError(f"{where}: idname {as_text(query['idname'])!r} is not 'p' and a number")
        image = as_text(query["imname"])
        box = _xywh_to_xyxy(_box(query["idlocate"], where))
        queries.append(Query(image, box, int(identity[1])))
        entries = _struct(row["Gallery"], ("imname", "idlocate"), where, size=None)
        galleries.append(_make_gallery(entries, index_of, where))
        if image not in index_of:
            raise KdpsError(f"{where}: query image {image!r} is not in pool.mat")
    return SearchProtocol(
        name=name,
        images=tuple(pool),
        cam_ids=np.zeros(len(pool), dtype=np.int64),
        queries=tuple(queries),
        galleries=tuple(galleries),
    )


def _make_gallery(entries: np.ndarray, index_of: dict[str, int], where: str) -> Gallery:
    images, truth_images, truth_boxes = [], [], []
    for entry in entries:
        name = as_text(entry["imname"])
        if name not in index_of:
            raise KdpsError(f"{where}: gallery image {name!r} is not in pool.mat")
        images.append(index_of[name])
        if entry["idlocate"].size:
            truth_images.append(index_of[name])
            truth_boxes.append(_xywh_to_xyxy(_box(entry["idlocate"], where)))
    return Gallery(
        images=np.array(images, dtype=np.int64),
        excluded=NO_IMAGES,
        truth_images=np.array(truth_images, dtype=np.int64),
        truth_boxes=np.array(truth_boxes, dtype=np.float64).reshape(-1, 4),
    )


def _xywh_to_xyxy(box: Box) -> tuple[float, float, float, float]:
    x, y, w, h = map(float, box)
    return x, y, x + w, y + h


def _xyxy_to_xywh(box: tuple[float, ...]) -> Box:
    x1, y1, x2, y2 = box
    return int(x1), int(y1), int(x2 - x1), int(y2 - y1)
