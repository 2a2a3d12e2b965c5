# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The layouts on disk that can be read, behind one interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdps.data.datasets.cuhk_sysu import (
    available_gallery_sizes,
    load_cuhk_sysu,
    load_cuhk_sysu_protocol,
)
from kdps.data.datasets.files import list_folder, reading
from kdps.data.datasets.mot import MOTOptions, load_mot, load_mot_protocol
from kdps.data.datasets.person_json import load_person_json, load_person_json_protocol
from kdps.data.datasets.prw import load_prw, load_prw_protocol
from kdps.data.protocol import GalleryName, SearchProtocol
from kdps.errors import KdpsError


@dataclass(frozen=True)
class Layout:
    """How a set lies on disk and how to read it.

    Attributes:
        name: as on the command line.
        signs: patterns of which at least one matches in the root of a set in this layout.
        load: ``(root, split, image_sizes)`` to records.
        protocol: ``(root, gallery, name)`` to the test protocol.
        gallery_sizes: sizes that ``protocol`` knows for a root; none if there is one gallery only.
    """

    name: str
    signs: tuple[str, ...]
    load: Callable[[Path, str, bool], list[dict[str, Any]]]
    protocol: Callable[[Path, GalleryName, str], SearchProtocol]
    gallery_sizes: Callable[[Path], list[int]] = lambda root: []


def mot_layout(options: MOTOptions | None = None) -> Layout:
    """MOTChallenge sequences, split and searched as ``options`` say."""

    def load(root: Path, split: str, image_sizes: bool) -> list[dict[str, Any]]:
        return load_mot(root, split, options, image_sizes=image_sizes)

    def protocol(root: Path, gallery: GalleryName, name: str) -> SearchProtocol:
        _require_default(gallery, name)
        return load_mot_protocol(root, options, name=name)

    return Layout("mot", ("seqinfo.ini", "*/seqinfo.ini"), load, protocol)


def coco_layout(image_root: str | Path | None = None) -> Layout:
    """A COCO-style file; ``file_name`` starts from ``image_root``, by default the file's folder."""

    def load(root: Path, split: str, image_sizes: bool) -> list[dict[str, Any]]:
        return load_person_json(root, image_root or root.parent, split, image_sizes=image_sizes)

    def protocol(root: Path, gallery: GalleryName, name: str) -> SearchProtocol:
        _require_default(gallery, name)
        return load_person_json_protocol(root, name=name)

    return Layout("coco", (), load, protocol)


def _load_cuhk_sysu(root: Path, split: str, image_sizes: bool) -> list[dict[str, Any]]:
    return load_cuhk_sysu(root, split, image_sizes=image_sizes)


def _cuhk_sysu_protocol(root: Path, gallery: GalleryName, name: str) -> SearchProtocol:
    return load_cuhk_sysu_protocol(root, gallery, name=name)


def _load_prw(root: Path, split: str, image_sizes: bool) -> list[dict[str, Any]]:
    return load_prw(root, split, image_sizes=image_sizes)


def _prw_protocol(root: Path, gallery: GalleryName, name: str) -> SearchProtocol:
    _require_default(gallery, name)
    return load_prw_protocol(root, name=name)


def _require_default(gallery: GalleryName, name: str) -> None:
    if gallery is not None:
        what = f"gallery of {gallery} images" if isinstance(gallery, int) else f"{gallery!r}"
        raise KdpsError(f"{name} has no {what}, only its default gallery")


CUHK_SYSU = Layout(
    "cuhk-sysu",
    ("annotation/Images.mat", "annotation/pool.mat", "annotation/test/train_test"),
    _load_cuhk_sysu,
    _cuhk_sysu_protocol,
    available_gallery_sizes,
)
PRW = Layout(
    "prw",
    ("frame_train.mat", "frame_test.mat"),
    _load_prw,
    _prw_protocol,
)
LAYOUTS = {layout.name: layout for layout in (CUHK_SYSU, PRW, mot_layout(), coco_layout())}


def find_signs(root: Path) -> dict[str, str]:
    """Name of each layout that a folder shows a sign of -> its first sign."""
    return {
        layout.name: sign
        for layout in LAYOUTS.values()
        for sign in reversed(layout.signs)
        if next(root.glob(sign), None) is not None
    }


def require_one_layout(root: Path, signs: dict[str, str]) -> None:
    """Raise ``KdpsError`` if a folder shows the signs of several layouts."""
    if len(signs) > 1:
        found = " and ".join(f"{layout} ({sign})" for layout, sign in signs.items())
        raise KdpsError(f"{root} mixes layouts: {found}; give each set a folder of its own")


def detect_layout(root: str | Path) -> Layout:
    """The one layout that a folder, or a JSON file, shows signs of.

    Raises:
        KdpsError: it shows none or those of several, does not exist or may not be looked into.
    """
    root = Path(root)
    with reading(root):
        if root.is_file() and root.suffix == ".json":
            return LAYOUTS["coco"]
    entries = list_folder(root)
    if not entries:
        raise KdpsError(f"folder {root} is empty")
    signs = find_signs(root)
    if not signs:
        for entry in entries:
            # The search for signs passes over a folder that it may not look into.
            with reading(entry):
                is_folder = entry.is_dir()
            if is_folder:
                list_folder(entry)
        raise KdpsError(f"{root} has none of the known layouts ({', '.join(LAYOUTS)})")
    require_one_layout(root, signs)
    return LAYOUTS[next(iter(signs))]
