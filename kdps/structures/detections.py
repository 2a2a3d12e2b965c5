# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What a person-search model said about a test set: the input of every metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kdps.data.protocol import SearchProtocol
from kdps.errors import KdpsError
from kdps.structures.ragged import offsets_of


@dataclass
class Detections:
    """Detections and embeddings of a test set, as flat arrays with counts per image.

    The fields carry the names of the arrays in the detections file (``.npz``). N = images,
    M = detections of all images, D = embedding size, Q = queries, G = annotated boxes,
    P = persons of all query images.

    Attributes:
        names: N image names, as in the protocol (``SearchProtocol.images``).
        det_count: (N,) detections of each image; sums to M.
        det: (M, 5) float32, XYXY absolute pixels of the original image, then the score.
        emb: (M, D) float32 rows of unit length, never weighted by the score.
        query_emb: (Q, D) float32 rows of unit length, in the order of ``SearchProtocol.queries``; a
            row of zeros is a query that the model could not embed, which finds nothing.
        gt_count: (N,) annotated boxes of each image, in record order; None if not computed.
        gt_emb: (G, D) embeddings of the annotated boxes.
        qdet_count: (Q,) persons of each query's image, the given box first; None if not computed.
        qdet: (P, 5) their boxes and scores, as ``det``.
        qdet_emb: (P, D) their embeddings.
        meta: method, weights' hash, score cut, query mode: whatever tells where this came from.
    """

    names: tuple[str, ...]
    det_count: np.ndarray
    det: np.ndarray
    emb: np.ndarray
    query_emb: np.ndarray
    gt_count: np.ndarray | None = None
    gt_emb: np.ndarray | None = None
    qdet_count: np.ndarray | None = None
    qdet: np.ndarray | None = None
    qdet_emb: np.ndarray | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def offsets(self) -> np.ndarray:
        """(N + 1,) start of each image's rows in ``det`` and ``emb``."""
        return offsets_of(self.det_count)

    @property
    def image_of_det(self) -> np.ndarray:
        """(M,) index of each detection's image."""
        return np.repeat(np.arange(len(self.names)), self.det_count)


def check_same_protocol(detections: Detections, protocol: SearchProtocol) -> None:
    """Make sure that detections are of the images and queries of a protocol, in its order.

    Raises:
        KdpsError: says which image or count differs.
    """
    check_same_images_of(detections, protocol)
    if len(detections.query_emb) != len(protocol.queries):
        raise KdpsError(
            f"detections hold {len(detections.query_emb)} query embeddings, but {protocol.name} "
            f"has {len(protocol.queries)} queries"
        )


def check_same_images_of(detections: Detections, protocol: SearchProtocol) -> None:
    """Make sure that detections are of the images of a protocol, in its order.

    Raises:
        KdpsError: says which image or count differs.
    """
    _check_names(detections.names, protocol.images, protocol.name)


def check_same_images(detections: Detections, records: Sequence[Mapping[str, Any]]) -> None:
    """Make sure that detections are of the images of test records, in their order.

    Raises:
        KdpsError: says which image or count differs.
    """
    names = tuple(record["image_id"] for record in records)
    _check_names(detections.names, names, "the test set")


def _check_names(names: Sequence[str], expected: Sequence[str], source: str) -> None:
    if len(names) != len(expected):
        raise KdpsError(f"detections are of {len(names)} images, but {source} has {len(expected)}")
    for i, (name, image) in enumerate(zip(names, expected, strict=True)):
        if name != image:
            raise KdpsError(
                f"detections have {name!r} as image {i}, but {source} has {image!r} there"
            )
