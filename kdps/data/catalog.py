# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Registration of person-search sets with Detectron2's catalogs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from kdps.data.protocol import GalleryName, SearchProtocol
from kdps.errors import KdpsError

Loader = Callable[[], list[dict[str, Any]]]
ProtocolLoader = Callable[[GalleryName], SearchProtocol]

_TYPE = "person_search"


def register_person_search(
    name: str,
    loader: Loader,
    protocol: ProtocolLoader | None = None,
    *,
    gallery_sizes: Sequence[int | str] = (),
    queue_size: int | None = None,
    **metadata: Any,
) -> None:
    """Register a data set under Detectron2's ``DatasetCatalog`` and ``MetadataCatalog``.

    Args:
        name: the name that configs use.
        loader: returns the records (see ``kdps.data.records``). Called when the set is used, not
            before.
        protocol: for a test set, ``protocol(gallery_size)`` returns its queries and galleries;
            ``gallery_size`` is None for the set's default.
        gallery_sizes: sizes and names that ``protocol`` knows; empty if the set has one gallery.
        queue_size: recommended length of the circular queue when training on this set; None
            derives it from the number of unlabelled boxes.
        metadata: more entries for ``MetadataCatalog``.
    """
    DatasetCatalog.register(name, loader)
    MetadataCatalog.get(name).set(
        evaluator_type=_TYPE,
        thing_classes=["person"],
        protocol_loader=protocol,
        gallery_sizes=tuple(gallery_sizes),
        queue_size=queue_size,
        **metadata,
    )


def person_search_sets() -> list[str]:
    """Names of all registered person-search sets, in the order of their registration."""
    return [name for name in DatasetCatalog.list() if _metadata(name, "evaluator_type") == _TYPE]


def is_training_set(name: str) -> bool:
    """Whether a registered person-search set has no protocol, hence is there to train on."""
    return _metadata(name, "protocol_loader") is None


def get_protocol(name: str, gallery_size: GalleryName = None) -> SearchProtocol:
    """The search protocol of a registered test set.

    Raises:
        KdpsError: the set has no protocol or not this gallery size.
    """
    metadata = MetadataCatalog.get(name)
    loader = metadata.get("protocol_loader", None)
    if loader is None:
        raise KdpsError(f"data set {name!r} has no search protocol; register it with `protocol=`")
    sizes = metadata.get("gallery_sizes", ())
    if gallery_size is not None and gallery_size not in sizes:
        known = ", ".join(map(str, sizes)) or "only its default gallery"
        raise KdpsError(f"data set {name!r} has no gallery size {gallery_size}; it has {known}")
    return loader(gallery_size)


def _metadata(name: str, key: str) -> Any:
    return MetadataCatalog.get(name).get(key, None)
