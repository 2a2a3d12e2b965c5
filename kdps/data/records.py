# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The record contract: Detectron2's dataset dict plus identities, cameras and queries.

A record is a dict with

* ``file_name``: path of the image; ``image_id``: its unique name in the set (a string);
* ``height``, ``width``: pixels, when known (the mapper fills them in otherwise);
* ``cam_id``: int, 0 where the set has no cameras;
* ``annotations``: list of dicts with ``bbox`` (XYXY), ``bbox_mode`` (``BoxMode.XYXY_ABS``),
  ``category_id`` (0, person) and ``person_id``: contiguous from 0 in a training set, the set's
  own numbering in a test set, -1 for an unlabelled person;
* ``queries`` (test sets): list of dicts with ``query_id``, ``bbox``, ``bbox_mode``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from detectron2.structures import BoxMode

from kdps.data.protocol import SearchProtocol
from kdps.errors import KdpsError

UNLABELLED = -1


def make_annotation(bbox: Sequence[float], person_id: int) -> dict[str, Any]:
    """An annotation of one person; ``bbox`` is XYXY in absolute pixels."""
    return {
        "bbox": [float(v) for v in bbox],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": 0,
        "person_id": int(person_id),
    }


def attach_queries(records: Iterable[dict[str, Any]], protocol: SearchProtocol) -> None:
    """Put each query of ``protocol`` into the record of its image, under ``queries``.

    Raises:
        KdpsError: no record is of the query's image.
    """
    by_name = {record["image_id"]: record for record in records}
    for record in by_name.values():
        record["queries"] = []
    for query_id, query in enumerate(protocol.queries):
        if query.image not in by_name:
            raise KdpsError(
                f"{protocol.name}: query {query_id} is in image {query.image!r}, which is not "
                "in the test set"
            )
        by_name[query.image]["queries"].append(
            {"query_id": query_id, "bbox": list(query.bbox), "bbox_mode": BoxMode.XYXY_ABS}
        )


def renumber_identities(records: Iterable[dict[str, Any]]) -> None:
    """Number the identities of a training set from 0 upwards, in the order of their numbers."""
    annotations = [a for record in records for a in record["annotations"]]
    own = sorted({a["person_id"] for a in annotations} - {UNLABELLED})
    new = {pid: index for index, pid in enumerate(own)} | {UNLABELLED: UNLABELLED}
    for annotation in annotations:
        annotation["person_id"] = new[annotation["person_id"]]
