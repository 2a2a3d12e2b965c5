# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Search accuracy from camera to camera: where a person is lost on the way between two views."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kdps.data.protocol import SearchProtocol
from kdps.data.variants import restrict_to_cameras
from kdps.errors import KdpsError
from kdps.evaluation.entries import Repeats
from kdps.evaluation.search import score_search
from kdps.structures.detections import Detections, check_same_protocol


@dataclass(frozen=True)
class CameraPairs:
    """Accuracy of the queries of one camera in the frames of another. C = cameras.

    Row a and column b of an array are of the queries of ``cameras[a]`` in the gallery images of
    ``cameras[b]``. On the diagonal a query's own image is there as far as the protocol has it.

    Attributes:
        name: of the protocol.
        cameras: (C,) ids, ascending.
        mean_ap: (C, C) float64 in [0, 1]; NaN where no query can be scored.
        top1: (C, C) float64 share of the queries with a true positive first; NaN likewise.
        num_queries: (C, C) queries that have a truth in the gallery camera.
        num_left_out: (C, C) queries that have none and are left out.
    """

    name: str
    cameras: np.ndarray
    mean_ap: np.ndarray
    top1: np.ndarray
    num_queries: np.ndarray
    num_left_out: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """JSON values, a list per query camera; accuracy in percent, None where there is none."""
        return {
            "cameras": self.cameras.tolist(),
            "mAP": _percent(self.mean_ap),
            "top1": _percent(self.top1),
            "queries": self.num_queries.tolist(),
            "left_out": self.num_left_out.tolist(),
        }


def score_camera_pairs(
    detections: Detections,
    protocol: SearchProtocol,
    *,
    score_thresh: float = 0.5,
    weighted: bool = False,
    repeats: Repeats = "first",
) -> CameraPairs:
    """Search the queries of each camera in the frames of each camera.

    Args:
        detections: what the model found.
        protocol: queries and galleries over images of several cameras.
        score_thresh: detections below take no part.
        weighted: as in ``score_search``.
        repeats: as in ``score_search``.

    Raises:
        KdpsError: all images are of one camera, no query has a truth, or detections and protocol
            do not belong together.
    """
    check_same_protocol(detections, protocol)
    cameras = np.unique(protocol.cam_ids)
    if len(cameras) < 2:
        raise KdpsError(
            f"{protocol.name}: accuracy by pairs of cameras needs images of two, and all of these "
            f"are of camera {', '.join(map(str, cameras))}"
        )
    if not any(len(gallery.truth_images) for gallery in protocol.galleries):
        raise KdpsError(f"{protocol.name}: no query has the person it looks for in its gallery")
    of_camera = protocol.cam_ids[protocol.query_images] == cameras[:, None]
    shape = (len(cameras), len(cameras))
    mean_ap, top1 = np.full(shape, np.nan), np.full(shape, np.nan)
    num_queries = np.zeros(shape, dtype=np.int64)
    for column, camera in enumerate(cameras):
        gallery = restrict_to_cameras(protocol, [camera])
        if not any(len(g.truth_images) for g in gallery.galleries):
            continue
        # Without the others' detections all columns together multiply matrices as one search does.
        seen = _seen_by(detections, protocol.cam_ids == camera)
        result = score_search(
            seen, gallery, score_thresh=score_thresh, weighted=weighted, repeats=repeats, top=0
        )
        hits = result.hits(1)
        for row, own in enumerate(of_camera & result.scored):
            num_queries[row, column] = own.sum()
            if own.any():
                mean_ap[row, column] = result.ap[own].mean()
                top1[row, column] = hits[own].mean()
    return CameraPairs(
        name=protocol.name,
        cameras=cameras,
        mean_ap=mean_ap,
        top1=top1,
        num_queries=num_queries,
        num_left_out=of_camera.sum(axis=1, keepdims=True) - num_queries,
    )


def _seen_by(detections: Detections, inside: np.ndarray) -> Detections:
    """Only the detections in some images; the others stay, without any."""
    kept = inside[detections.image_of_det]
    return replace(
        detections,
        det_count=np.where(inside, detections.det_count, 0),
        det=detections.det[kept],
        emb=detections.emb[kept],
    )


def _percent(shares: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(v) else 100 * float(v) for v in row] for row in shares]
