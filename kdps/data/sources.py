# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A split to look at, by its registered name or by its folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from kdps.data.catalog import get_protocol, is_training_set, person_search_sets
from kdps.data.datasets.layouts import Layout
from kdps.data.protocol import GalleryName, SearchProtocol
from kdps.errors import KdpsError


@dataclass(frozen=True)
class SplitSource:
    """Where a split comes from; nothing is read before it is asked for.

    Attributes:
        name: for messages: the registered name, or "train" or "test".
        load: the records, without a look at the images where the layout allows.
        protocol: for a test split, the protocol of a gallery (None: the default).
        gallery_sizes: sizes that the split has; empty if it has one gallery only.
        layout: None for a set that is registered by its loader only.
        root: folder of the set (the file for "coco"), where the layout is known.
        resembles: for a split named by its folder, the name of a built-in one in the same layout,
            if there is one. Other sets share the layouts, so that its size may be another.
    """

    name: str
    load: Callable[[], list[dict[str, Any]]]
    protocol: Callable[[GalleryName], SearchProtocol] | None = None
    gallery_sizes: Callable[[], list[int]] = field(default=list)
    layout: Layout | None = None
    root: Path | None = None
    resembles: str | None = None


def source_of_name(name: str) -> SplitSource:
    """The split registered under ``name``.

    Raises:
        KdpsError: no person-search set has this name, or its folder does not exist.
    """
    names = person_search_sets()
    if name not in names:
        raise KdpsError(f"unknown data set {name!r}; known are {', '.join(names)}")
    metadata = MetadataCatalog.get(name)
    is_train = is_training_set(name)
    layout = metadata.get("layout", None)
    if layout is not None:
        split = "train" if is_train else "test"
        return source_of_root(metadata.find_root(), layout, split, name=name)
    return SplitSource(
        name=name,
        load=partial(DatasetCatalog.get, name),
        protocol=None if is_train else partial(get_protocol, name),
        gallery_sizes=lambda: list(metadata.gallery_sizes),
    )


def source_of_root(
    root: str | Path, layout: Layout, split: str, *, name: str | None = None
) -> SplitSource:
    """One split of the set in a folder.

    Args:
        root: the folder, or the JSON file.
        layout: how it lies there.
        split: "train" or "test".
        name: name for messages; the split by default.
    """
    root = Path(root)
    resembles = None if name else f"{layout.name}_{split}".replace("-", "_")
    name = name or split
    is_train = split == "train"
    return SplitSource(
        name=name,
        load=lambda: layout.load(root, split, False),
        protocol=None if is_train else lambda size: layout.protocol(root, size, name),
        gallery_sizes=lambda: layout.gallery_sizes(root),
        layout=layout,
        root=root,
        resembles=resembles,
    )
