# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""From model outputs, image by image, to ``Detections`` of a whole test set."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.structures import Instances

from kdps.data.protocol import SearchProtocol
from kdps.errors import KdpsError
from kdps.evaluation.detections_file import check_detections
from kdps.evaluation.query_by_iou import embed_queries_by_iou
from kdps.structures.detections import Detections

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImagePrediction:
    """What a model said about one image, on the host.

    Attributes:
        image_id: the image's name in the protocol.
        det: (R, 5) float32 XYXY in pixels of the original image, then the score.
        emb: (R, D) float32 unit rows.
        query_ids: (q,) int64 queries that were taken from this image.
        query_emb: (q, D) float32 unit rows.
        annotated_emb: (g, D) embeddings of the annotated boxes; None if the model was not asked.
        has_queries: whether the model was asked for queries; some models cannot be.
    """

    image_id: str
    det: np.ndarray
    emb: np.ndarray
    query_ids: np.ndarray
    query_emb: np.ndarray
    annotated_emb: np.ndarray | None
    has_queries: bool = True

    @classmethod
    def from_output(cls, image_id: str, output: Mapping[str, Instances]) -> ImagePrediction:
        """Take the arrays out of a model's output for one image.

        Raises:
            KdpsError: the output has no ``instances`` with ``pred_embeddings``.
        """
        instances = output.get("instances")
        if instances is None or not instances.has("pred_embeddings"):
            raise KdpsError(f"{image_id}: the model's output has no instances.pred_embeddings")
        boxes = _to_numpy(instances.pred_boxes.tensor)
        scores = _to_numpy(instances.scores)
        queries, annotated = output.get("queries"), output.get("annotated")
        emb = _to_numpy(instances.pred_embeddings)
        if queries is None:
            query_ids = np.zeros(0, dtype=np.int64)
            query_emb = np.zeros((0, emb.shape[1]), dtype=np.float32)
        else:
            query_ids = queries.query_ids.cpu().numpy().astype(np.int64)
            query_emb = _to_numpy(queries.pred_embeddings)
        return cls(
            image_id=str(image_id),
            det=np.concatenate([boxes, scores[:, None]], axis=1),
            emb=emb,
            query_ids=query_ids,
            query_emb=query_emb,
            annotated_emb=None if annotated is None else _to_numpy(annotated.pred_embeddings),
            has_queries=queries is not None,
        )


def assemble_for_protocol(
    predictions: Sequence[ImagePrediction], protocol: SearchProtocol, meta: Mapping[str, Any]
) -> Detections:
    """Put the predictions of a test set into protocol order, with an embedding for each query.

    Queries of a model that embeds no boxes take the detection that overlaps theirs most.

    Raises:
        KdpsError: as ``assemble_detections``.
    """
    detections = assemble_detections(predictions, protocol.images, len(protocol.queries), meta)
    if not any(prediction.has_queries for prediction in predictions):
        logger.info(
            "The model embeds no query boxes: each query takes the embedding of the detection "
            "that overlaps it most"
        )
        detections = embed_queries_by_iou(detections, protocol)
        detections.meta["query_mode"] = "best_iou"
    check_detections(detections, protocol.name)
    return detections


def assemble_detections(
    predictions: Iterable[ImagePrediction],
    names: Sequence[str],
    num_queries: int,
    meta: Mapping[str, Any],
) -> Detections:
    """Put the predictions of all images into protocol order.

    Args:
        predictions: one per image, in any order.
        names: all images, in protocol order.
        num_queries: queries of the protocol; their ids are 0 to ``num_queries - 1``.
        meta: goes into the result.

    Returns:
        The whole set; ``query_emb`` is zero if no prediction has queries.

    Raises:
        KdpsError: an image or a query is unknown, missing or there twice, or a number is not
            finite.
    """
    by_name: dict[str, ImagePrediction] = {}
    for prediction in predictions:
        if prediction.image_id in by_name:
            raise KdpsError(f"image {prediction.image_id} was evaluated twice")
        check_finite(prediction)
        by_name[prediction.image_id] = prediction
    known = set(names)
    unknown = next((name for name in by_name if name not in known), None)
    if unknown is not None:
        raise KdpsError(f"image {unknown} was evaluated, but is not in the test set")
    missing = [name for name in names if name not in by_name]
    if missing:
        raise KdpsError(
            f"{len(missing)} of {len(names)} images were not evaluated, {missing[0]} first"
        )
    ordered = [by_name[name] for name in names]
    gt: dict[str, np.ndarray] = {}
    if any(p.annotated_emb is not None for p in ordered):
        # An image without people may come without the key.
        parts = [p.emb[:0] if p.annotated_emb is None else p.annotated_emb for p in ordered]
        gt["gt_count"] = np.array([len(part) for part in parts], dtype=np.int64)
        gt["gt_emb"] = np.concatenate(parts)
    return Detections(
        names=tuple(names),
        det_count=np.array([len(p.det) for p in ordered], dtype=np.int64),
        det=np.concatenate([p.det for p in ordered]),
        emb=np.concatenate([p.emb for p in ordered]),
        query_emb=_queries_in_order(ordered, num_queries),
        meta=dict(meta),
        **gt,
    )


def check_finite(prediction: ImagePrediction) -> None:
    """Check what a model said about an image.

    Raises:
        KdpsError: a number is not finite.
    """
    for what, values in (
        ("a detection", prediction.det),
        ("an embedding", prediction.emb),
        ("a query embedding", prediction.query_emb),
        ("the embedding of an annotated box", prediction.annotated_emb),
    ):
        if values is not None and not np.isfinite(values).all():
            raise KdpsError(
                f"image {prediction.image_id}: {what} is not finite (has training diverged?)"
            )


def _queries_in_order(predictions: Sequence[ImagePrediction], num_queries: int) -> np.ndarray:
    if not any(p.has_queries for p in predictions):
        return np.zeros((num_queries, predictions[0].emb.shape[1]), dtype=np.float32)
    ids = np.concatenate([p.query_ids for p in predictions])
    outside = (ids < 0) | (ids >= num_queries)
    if outside.any():
        raise KdpsError(f"the model returned query {ids[outside][0]} of only {num_queries}")
    times = np.bincount(ids, minlength=num_queries)
    if (times != 1).any():
        query = int(np.argmax(times != 1))
        fault = "was lost" if times[query] == 0 else "came back more than once"
        raise KdpsError(
            f"query {query} of {num_queries} {fault}: the model's output must hold an embedding "
            "of each query box under 'queries'"
        )
    embeddings = np.concatenate([p.query_emb for p in predictions])
    return embeddings[np.argsort(ids)]


def _to_numpy(tensor: Any) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
