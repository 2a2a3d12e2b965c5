# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Detections of small sets for tests, made from their annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdps.data.protocol import SearchProtocol
from kdps.structures.detections import Detections


def detect_everybody(
    records: Sequence[Mapping[str, Any]],
    protocol: SearchProtocol,
    *,
    noise: float = 0.0,
    meta: Mapping[str, Any] | None = None,
) -> Detections:
    """Each annotated box, found with a score of 0.9 and with the embedding of the annotated box.

    Without noise, boxes of one identity are alike and those of two are not; unlabelled persons are
    alike as well. The embedding size is the number of identities.

    Args:
        records: the test records.
        protocol: of the same set.
        noise: length of the error of an embedding, drawn at random, beside 1 for the identity.
        meta: of the detections.
    """
    people = [annotation for record in records for annotation in record["annotations"]]
    shown = [annotation["person_id"] for annotation in people]
    searched = [query.person_id for query in protocol.queries]
    ids = sorted({*shown, *searched})
    rng = np.random.default_rng(0)

    def embed(person_ids: Sequence[int]) -> np.ndarray:
        error = rng.normal(size=(len(person_ids), len(ids)))
        error *= noise / np.linalg.norm(error, axis=1, keepdims=True)
        emb = np.eye(len(ids))[[ids.index(person_id) for person_id in person_ids]] + error
        return (emb / np.linalg.norm(emb, axis=1, keepdims=True)).astype(np.float32)

    counts = np.array([len(record["annotations"]) for record in records])
    emb = embed(shown)
    return Detections(
        names=protocol.images,
        det_count=counts,
        det=np.array([[*annotation["bbox"], 0.9] for annotation in people], dtype=np.float32),
        emb=emb,
        query_emb=embed(searched),
        gt_count=counts.copy(),
        gt_emb=emb.copy(),
        meta=dict(meta or {}),
    )
