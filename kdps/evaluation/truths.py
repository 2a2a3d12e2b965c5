# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Which detections are on the person that a query looks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdps.data.protocol import SearchProtocol
from kdps.errors import KdpsError
from kdps.evaluation.metrics import iou_threshold, paired_iou
from kdps.structures.ragged import expand, offsets_of


@dataclass(frozen=True)
class Matches:
    """Pairs of a truth and a detection on it, by query.

    Attributes:
        num_truths: (Q,) truths of each query, every listing of a repeated image included.
        offsets: (Q + 1,) where each query's pairs start.
        truth: (P,) truth of each pair, numbered over all queries.
        detection: (P,) its detection: a row of the arrays given.
    """

    num_truths: np.ndarray
    offsets: np.ndarray
    truth: np.ndarray
    detection: np.ndarray


def match_truths(protocol: SearchProtocol, boxes: np.ndarray, offsets: np.ndarray) -> Matches:
    """Find all detections that overlap a truth enough.

    Of several truths of a query in one image only the first is compared: the image is ranked once.

    Args:
        protocol: queries and their truths.
        boxes: (M, 4) XYXY detections, image after image in protocol order.
        offsets: (N + 1,) where each image's detections start.

    Raises:
        KdpsError: a truth lies in an image that is not in the query's gallery.
    """
    galleries = protocol.galleries
    num_truths = np.array([len(gallery.truth_images) for gallery in galleries], dtype=np.int64)
    query = np.repeat(np.arange(len(galleries)), num_truths)
    image = np.concatenate([np.asarray(g.truth_images, dtype=np.int64) for g in galleries])
    truth_boxes = np.concatenate([np.reshape(g.truth_boxes, (-1, 4)) for g in galleries])
    _check_in_gallery(protocol)

    _, first = np.unique(query * len(protocol.images) + image, return_index=True)
    counts = offsets[image[first] + 1] - offsets[image[first]]
    truth = np.repeat(first, counts)
    detection = expand(offsets[image[first]], counts)
    on_person = (
        paired_iou(truth_boxes[truth], boxes[detection]) >= iou_threshold(truth_boxes)[truth]
    )
    truth, detection = truth[on_person], detection[on_person]
    pairs_per_query = np.bincount(query[truth], minlength=len(galleries))
    return Matches(num_truths, offsets_of(pairs_per_query), truth, detection)


def _check_in_gallery(protocol: SearchProtocol) -> None:
    for i, gallery in enumerate(protocol.galleries):
        if gallery.images is None:
            outside = np.isin(gallery.truth_images, gallery.excluded)
        else:
            outside = ~np.isin(gallery.truth_images, gallery.images)
        if outside.any():
            name = protocol.images[gallery.truth_images[int(np.argmax(outside))]]
            raise KdpsError(
                f"{protocol.name}: query {i} has a truth in {name}, which is not in its gallery"
            )
