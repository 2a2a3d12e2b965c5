# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Pure functions behind the person-search and detection numbers (NumPy only).

The rules are those of the public evaluators of the field (OIM, NAE, SeqNet), which agree on them:
IoU without the one-pixel margin, a threshold that is lower for tiny boxes, and average precision
multiplied by recall, so that a person whom the detector missed counts as missed.
"""

from __future__ import annotations

import numpy as np


def average_precision(scores: np.ndarray, positive_scores: np.ndarray, num_truths: int) -> float:
    """Average precision times recall; equal scores are one step of the curve.

    The same as ``sklearn.metrics.average_precision_score`` times ``positives / num_truths``: each
    positive adds the precision at its own score, and truths that nothing matched add zero.

    Args:
        scores: (N,) scores of everything retrieved, the positives included.
        positive_scores: (P,) scores of the true positives.
        num_truths: all there is to find, P or more.

    Returns:
        A number in [0, 1]; 0 without positives.
    """
    if positive_scores.size == 0:
        return 0.0
    # Only what scores at least as high as the last positive decides a precision.
    retrieved = np.sort(scores[scores >= positive_scores.min()])
    found = np.sort(positive_scores)
    num_retrieved = retrieved.size - np.searchsorted(retrieved, found, side="left")
    num_correct = found.size - np.searchsorted(found, found, side="left")
    return float((num_correct / num_retrieved).sum() / num_truths)


def iou_threshold(boxes: np.ndarray) -> np.ndarray:
    """IoU from which a detection is on the person: min(0.5, wh / ((w + 10)(h + 10))).

    Args:
        boxes: (T, 4) XYXY truth boxes in absolute pixels.

    Returns:
        (T,) float64. Below 0.5 for small boxes only, where a few pixels cost much overlap.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return np.minimum(0.5, w * h / ((w + 10) * (h + 10)))


def is_on_person(truths: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Whether the i-th box is on the person in the i-th truth.

    Args:
        truths: (P, 4) XYXY truth boxes in absolute pixels.
        boxes: (P, 4) detected ones.

    Returns:
        (P,) bool: the IoU reaches ``iou_threshold``. Nothing is on a truth without area, whose
        threshold 0 everything would reach.
    """
    iou = paired_iou(truths, boxes)
    return (iou >= iou_threshold(truths)) & (iou > 0)


def paired_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of the i-th box with the i-th other one, without a one-pixel margin.

    Args:
        boxes: (P, 4) XYXY absolute pixels.
        others: (P, 4) likewise.

    Returns:
        (P,) float64; 0 where both boxes are empty.
    """
    a, b = np.asarray(boxes, dtype=np.float64), np.asarray(others, dtype=np.float64)
    top_left, bottom_right = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    inter = np.clip(bottom_right - top_left, 0, None).prod(axis=1)
    union = (a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
