# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What a search accuracy is to be held against: the same detections with other embeddings.

Random embeddings show what the detector and the gallery give away by themselves, a colour histogram
what needs no learning, and annotated boxes what a perfect detector would leave to the embeddings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from kdps.data.protocol import SearchProtocol
from kdps.errors import KdpsError
from kdps.evaluation.annotated import annotated_as_detections
from kdps.evaluation.search import SearchResult, score_search
from kdps.structures.detections import Detections, check_same_images, check_same_protocol

_BINS = 8
_WIDTH_SHARE = 0.5
_HISTOGRAM_SIZE = 2 * _BINS**3


def compare_with_baselines(
    detections: Detections,
    records: Sequence[Mapping[str, Any]],
    protocol: SearchProtocol,
    *,
    score_thresh: float = 0.5,
    weighted: bool = False,
    seed: int = 0,
) -> dict[str, SearchResult]:
    """Score a model beside three yardsticks, on the same queries.

    Args:
        detections: the model's, if possible with embeddings of the annotated boxes.
        records: the test records, whose images are read for the histograms.
        protocol: queries and galleries.
        score_thresh: detections below take no part.
        weighted: weight similarities by the detection score, in all rows alike, so that the rows
            differ in their embeddings only.
        seed: of the random embeddings.

    Returns:
        ``model``, ``random``, ``histogram`` and, if the detections hold embeddings of the
        annotated boxes, ``gt_boxes`` (the model in annotated boxes).

    Raises:
        KdpsError: an image cannot be read, or the arguments do not belong together.
    """
    random = random_embeddings(detections, seed)
    histogram = colour_histograms(detections, records, protocol)
    same_boxes = {"model": detections, "random": random, "histogram": histogram}
    results = {
        name: score_search(found, protocol, score_thresh=score_thresh, weighted=weighted)
        for name, found in same_boxes.items()
    }
    if detections.gt_emb is not None:
        annotated = annotated_as_detections(detections, records)
        results["gt_boxes"] = score_search(annotated, protocol, score_thresh=score_thresh)
    return results


def random_embeddings(detections: Detections, seed: int) -> Detections:
    """The same boxes with embeddings drawn uniformly from the sphere, queries included."""
    rng = np.random.default_rng(seed)

    def draw(rows: int) -> np.ndarray:
        values = rng.standard_normal((rows, detections.query_emb.shape[1]))
        return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)

    return _with_embeddings(detections, draw(len(detections.det)), draw(len(detections.query_emb)))


def colour_histograms(
    detections: Detections,
    records: Sequence[Mapping[str, Any]],
    protocol: SearchProtocol,
) -> Detections:
    """The same boxes with the colours inside them as embeddings, queries included.

    The embedding joins the RGB histograms (8 x 8 x 8 bins) of the upper and the lower half of the
    box, over the middle half of its width, where there is more person than background. Of the
    shares the root is taken: unit rows whose dot product is the mean Bhattacharyya coefficient.

    Args:
        detections: the boxes.
        records: the test records, in the order of ``detections.names``, with ``file_name``.
        protocol: the query boxes.

    Raises:
        KdpsError: an image cannot be read, or the arguments do not belong together.
    """
    check_same_protocol(detections, protocol)
    check_same_images(detections, records)
    queries_of = defaultdict(list)
    for i, query in enumerate(protocol.queries):
        queries_of[query.image].append(i)
    emb = np.empty((len(detections.det), _HISTOGRAM_SIZE), dtype=np.float32)
    query_emb = np.empty((len(protocol.queries), _HISTOGRAM_SIZE), dtype=np.float32)
    offsets = detections.offsets
    for start, stop, record in zip(offsets[:-1], offsets[1:], records, strict=True):
        rows, queries = range(start, stop), queries_of[record["image_id"]]
        if not rows and not queries:
            continue
        image = cv2.imread(str(record["file_name"]), cv2.IMREAD_COLOR)
        if image is None:
            raise KdpsError(f"{record['file_name']}: not a readable image")
        for row in rows:
            emb[row] = colour_histogram(image, detections.det[row, :4])
        for i in queries:
            query_emb[i] = colour_histogram(image, protocol.queries[i].bbox)
    return _with_embeddings(detections, emb, query_emb)


def colour_histogram(image: np.ndarray, box: Sequence[float] | np.ndarray) -> np.ndarray:
    """Roots of the joint colour histograms of the upper and the lower half of a person.

    Args:
        image: (H, W, 3) uint8.
        box: XYXY pixels; the middle of its width counts, as far as it is inside the image, and
            at least one pixel of each half.

    Returns:
        (1024,) float32 of unit length.
    """
    x1, y1, x2, y2 = (float(v) for v in box)
    margin, middle = (1 - _WIDTH_SHARE) / 2 * (x2 - x1), (y1 + y2) / 2
    columns = _span(x1 + margin, x2 - margin, image.shape[1])
    halves = []
    for top, bottom in ((y1, middle), (middle, y2)):
        pixels = image[_span(top, bottom, image.shape[0]), columns]
        counts = cv2.calcHist([pixels], [0, 1, 2], None, [_BINS] * 3, [0, 256] * 3)
        halves.append(np.sqrt(counts / counts.sum()).ravel())
    return np.concatenate(halves) / np.float32(np.sqrt(2))


def _span(start: float, stop: float, size: int) -> slice:
    first = int(np.clip(np.floor(start), 0, size - 1))
    return slice(first, int(np.clip(np.ceil(stop), first + 1, size)))


def _with_embeddings(detections: Detections, emb: np.ndarray, query_emb: np.ndarray) -> Detections:
    return replace(
        detections,
        emb=emb,
        query_emb=query_emb,
        gt_count=None,
        gt_emb=None,
        qdet_count=None,
        qdet=None,
        qdet_emb=None,
    )
