# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Several training sets as one, and the table sizes that follow from them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from kdps.data.catalog import is_training_set, person_search_sets
from kdps.data.records import UNLABELLED
from kdps.errors import KdpsError

# The longest queue in use (CUHK-SYSU); a set that recommends none gets at most this.
MAX_QUEUE_SIZE = 5000


def get_training_dicts(names: Sequence[str]) -> tuple[list[dict[str, Any]], int, int]:
    """Records of registered training sets, with identities made disjoint between the sets.

    Returns:
        The records, the number of identities (rows of the lookup table), and the length of the
        circular queue: the one the set recommends, else its number of unlabelled boxes up to 5000;
        the longest of them for several sets.

    Raises:
        KdpsError: a set is unknown, has no identity, or its identities are not numbered from 0
            upwards.
    """
    if not names:
        raise KdpsError("DATASETS.TRAIN names no data set")
    records: list[dict[str, Any]] = []
    num_pids = queue_size = 0
    for name in names:
        if name not in DatasetCatalog:
            known = ", ".join(n for n in person_search_sets() if is_training_set(n))
            raise KdpsError(f"DATASETS.TRAIN: unknown data set {name!r}; known are {known}")
        own = copy.deepcopy(DatasetCatalog.get(name))
        annotations = [a for record in own for a in record["annotations"]]
        if not annotations:
            raise KdpsError(f"training set {name!r} has no annotated person")
        pids = {_require_pid(a, r, name) for r in own for a in r["annotations"]} - {UNLABELLED}
        if not pids:
            raise KdpsError(f"training set {name!r} has no person with an identity, all are -1")
        if pids != set(range(len(pids))):
            raise KdpsError(
                f"identities of training set {name!r} should be numbered 0 to {len(pids) - 1}; "
                f"they go from {min(pids)} to {max(pids)}"
            )
        for annotation in annotations:
            if annotation["person_id"] != UNLABELLED:
                annotation["person_id"] += num_pids
        recommended = MetadataCatalog.get(name).get("queue_size", None)
        if recommended is None:
            unlabelled = sum(a["person_id"] == UNLABELLED for a in annotations)
            recommended = min(MAX_QUEUE_SIZE, unlabelled)
        queue_size = max(queue_size, recommended)
        num_pids += len(pids)
        records += own
    return records, num_pids, queue_size


def _require_pid(annotation: dict[str, Any], record: dict[str, Any], name: str) -> int:
    pid = annotation.get("person_id")
    if not isinstance(pid, Integral) or pid < UNLABELLED:
        raise KdpsError(
            f"training set {name!r}, image {record['image_id']!r}: an annotation's person_id is "
            f"{pid!r}; it should be a whole number from -1 upwards"
        )
    return int(pid)
