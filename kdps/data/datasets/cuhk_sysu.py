# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""CUHK-SYSU (Xiao et al., "Joint Detection and Identification Feature Learning", CVPR 2017)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kdps.data.datasets.cuhk_sysu_protocol import (
    Box,
    Place,
    as_box,
    as_struct,
    as_structs,
    query_identities,
    read_protocol,
    xywh_to_xyxy,
)
from kdps.data.datasets.files import (
    list_folder,
    require_entries,
    require_split,
    require_unique,
)
from kdps.data.datasets.images import fill_image_sizes
from kdps.data.datasets.matlab import as_text, load_variable
from kdps.data.protocol import GalleryName, SearchProtocol
from kdps.data.records import UNLABELLED, attach_queries, make_annotation
from kdps.data.variants import full_set
from kdps.errors import KdpsError

logger = logging.getLogger(__name__)

GALLERY_SIZES = (50, 100, 500, 1000, 2000, 4000)
TRAIN_TEST = Path("annotation/test/train_test")
IMAGES_MAT = Path("annotation/Images.mat")
POOL_MAT = Path("annotation/pool.mat")
# Lists of some of the queries: the file and what its list is called. Read as TestG<size>.mat are.
SUBSETS = {
    "occlusion": (Path("annotation/test/subset/Occlusion.mat"), "Occlusion1"),
    "low-resolution": (Path("annotation/test/subset/Resolution.mat"), "Test_Size"),
}
GALLERIES: tuple[int | str, ...] = (*GALLERY_SIZES, "all", *SUBSETS)

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
        protocol = read_protocol(protocol_file(root, size), pool, f"g{size}")
        for pid, places in query_identities(protocol):
            _assign(boxes, places, pid, protocol_file(root, size))
    records = [_make_record(root, name, boxes, pool_mat=root / POOL_MAT) for name in names]
    if protocol is not None:
        attach_queries(records, protocol)
    if image_sizes:
        fill_image_sizes(records, root)
    return records


def load_cuhk_sysu_protocol(
    root: str | Path, gallery: GalleryName = 100, *, name: str = "cuhk_sysu_test"
) -> SearchProtocol:
    """Queries and galleries; no image is needed.

    Galleries keep images that are listed twice and lists that hold the query's own image, as the
    published files have them.

    Args:
        root: folder that holds ``annotation``.
        gallery: a size names ``TestG<size>.mat``. "all" is the full set (``variants.full_set`` of
            the shortest list), "occlusion" and "low-resolution" are lists of fewer queries. None
            stands for 100, the usual size, or for the largest list below it where a small set has
            no list of 100.
        name: what the protocol's name begins with.

    Raises:
        KdpsError: there is no such gallery, the file is missing or damaged, or names an image
            outside the pool.
    """
    root = _require_root(root)
    pool = _read_pool(root)
    if gallery in SUBSETS:
        path, variable = SUBSETS[gallery]
        return read_protocol(root / path, pool, f"{name}_{gallery}", variable)
    if isinstance(gallery, str) and gallery != "all":
        known = ", ".join(["a size", "all", *SUBSETS])
        raise KdpsError(f"{name} has no gallery {gallery!r}; it has {known}")
    sizes = available_gallery_sizes(root)
    if gallery == "all":
        shortest = read_protocol(protocol_file(root, sizes[0]), pool, name)
        return full_set(shortest, f"{name}_all")
    size = usual_gallery_size(sizes) if gallery is None else gallery
    if size not in sizes:
        known = ", ".join(map(str, sizes))
        raise KdpsError(f"{root} has no TestG{size}.mat; its gallery sizes are {known}")
    return read_protocol(protocol_file(root, size), pool, f"{name}_g{size}")


def usual_gallery_size(sizes: Sequence[int]) -> int:
    """100, or of the ascending ``sizes`` the largest below, or the smallest."""
    return max([size for size in sizes if size <= 100], default=sizes[0])


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
    images = as_structs(load_variable(path, "Img"), ("imname", "box"), str(path))
    boxes = {}
    dropped = 0
    names = [as_text(row["imname"]) for row in images]
    require_unique(names, path)
    for name, row in zip(names, images, strict=True):
        where = f"{path}, image {name}"
        rows = as_structs(row["box"], ("idlocate",), where)
        found = [as_box(r["idlocate"], where) for r in rows]
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
        identity = as_struct(cell, ("idname", "scene"), where)
        scenes = as_structs(identity["scene"], ("imname", "idlocate"), where)
        yield (
            as_text(identity["idname"]),
            [(as_text(s["imname"]), as_box(s["idlocate"], where)) for s in scenes],
        )


def _require_root(root: str | Path) -> Path:
    return require_entries(root, ("annotation", str(TRAIN_TEST)), "CUHK-SYSU")


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
            make_annotation(xywh_to_xyxy(box), pid) for box, pid in zip(*boxes[name], strict=True)
        ],
    }
