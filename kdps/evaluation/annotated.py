# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Search among the annotated boxes: what the embeddings are worth with perfect detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kdps.errors import KdpsError
from kdps.structures.detections import Detections, check_same_images


def annotated_as_detections(
    detections: Detections, records: Sequence[Mapping[str, Any]]
) -> Detections:
    """Replace the detections by the annotated boxes, with score 1 and their own embeddings.

    Args:
        detections: with ``gt_count`` and ``gt_emb``.
        records: the test records, in the order of ``detections.names``.

    Raises:
        KdpsError: the embeddings of annotated boxes are absent or do not fit the records.
    """
    if detections.gt_count is None or detections.gt_emb is None:
        raise KdpsError("the detections hold no embeddings of annotated boxes (gt_emb)")
    check_same_images(detections, records)
    counts = np.array([len(record["annotations"]) for record in records], dtype=np.int64)
    if not np.array_equal(counts, detections.gt_count):
        image = int(np.argmax(counts != detections.gt_count))
        raise KdpsError(
            f"image {detections.names[image]} has {counts[image]} annotated boxes, but "
            f"{detections.gt_count[image]} embeddings of them"
        )
    boxes = [a["bbox"] for record in records for a in record["annotations"]]
    det = np.ones((len(boxes), 5), dtype=np.float32)
    det[:, :4] = np.reshape(boxes, (-1, 4))
    return replace(detections, det_count=counts, det=det, emb=detections.gt_emb)
