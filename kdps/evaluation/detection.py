# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Detection recall and average precision, as person-search papers report them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdps.data.records import UNLABELLED
from kdps.errors import KdpsError
from kdps.evaluation.metrics import average_precision, paired_iou
from kdps.structures.detections import Detections, check_same_images
from kdps.structures.ragged import argmax_per_group, expand, offsets_of


@dataclass(frozen=True)
class DetectionResult:
    """Detection quality at one IoU. S = detections that were scored.

    Attributes:
        recall: share of the annotated persons that a detection matched, in [0, 1].
        ap: average precision times recall, in [0, 1].
        num_truths: annotated persons.
        scores: (S,) float32, image after image.
        matched: (S,) bool, whether the detection matched a person.
    """

    recall: float
    ap: float
    num_truths: int
    scores: np.ndarray
    matched: np.ndarray

    @property
    def num_detections(self) -> int:
        """Detections that were scored."""
        return len(self.scores)

    @property
    def num_matched(self) -> int:
        """Detections that matched a person."""
        return int(self.matched.sum())

    def metrics(self) -> dict[str, float]:
        """``recall`` and ``AP`` in percent."""
        return {"recall": 100 * self.recall, "AP": 100 * self.ap}

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Recall and precision, both (C,) float64 in [0, 1], at every cut of the score.

        From the highest score down; equal scores are one point. The area under its steps is ``ap``.
        """
        cuts, place = np.unique(-self.scores, return_inverse=True)
        retrieved = np.cumsum(np.bincount(place, minlength=len(cuts)))
        correct = np.cumsum(np.bincount(place[self.matched], minlength=len(cuts)))
        return correct / self.num_truths, correct / retrieved


def score_detections(
    detections: Detections,
    records: Sequence[Mapping[str, Any]],
    *,
    score_thresh: float = 0.01,
    iou_thresh: float = 0.5,
    labelled_only: bool = False,
) -> DetectionResult:
    """Match detections to annotated persons one to one, and score them.

    A detection and a person match when each is the other's best by IoU and the IoU reaches
    ``iou_thresh`` (the rule of the public evaluators, NAE's and SeqNet's among them). A mutual best
    is unique, so no further assignment is needed.

    Args:
        detections: of all images, in the order of ``records``.
        records: the test records with their annotations (``kdps.data.records``).
        score_thresh: detections below do not count (0.01 is what SeqNet and NAE report with).
        iou_thresh: IoU of a match.
        labelled_only: find labelled persons only. Images without any are left out; detections on
            unlabelled persons stay false positives, so only the recall is meaningful.

    Raises:
        KdpsError: images and records differ, or there is no person to find.
    """
    check_same_images(detections, records)
    boxes, image_of_box = _annotated_boxes(records, labelled_only)
    if len(boxes) == 0:
        raise KdpsError("detection cannot be scored: the records hold no annotated person")
    num_boxes = np.bincount(image_of_box, minlength=len(records))

    image_of_det = detections.image_of_det
    kept = detections.det[:, 4] >= score_thresh
    if labelled_only:
        kept &= num_boxes[image_of_det] > 0
    det, image_of_det = detections.det[kept], image_of_det[kept]

    # Every pair of a detection and an annotated box of one image.
    pair_det = np.repeat(np.arange(len(det)), num_boxes[image_of_det])
    pair_box = expand(offsets_of(num_boxes)[image_of_det], num_boxes[image_of_det])
    iou = paired_iou(det[pair_det, :4], boxes[pair_box])
    best_for_det = np.zeros(len(iou), dtype=bool)
    best_for_det[argmax_per_group(pair_det, iou)] = True
    best_for_box = np.zeros(len(iou), dtype=bool)
    best_for_box[argmax_per_group(pair_box, iou)] = True
    matched = np.zeros(len(det), dtype=bool)
    matched[pair_det[best_for_det & best_for_box & (iou >= iou_thresh)]] = True

    scores = det[:, 4]
    return DetectionResult(
        recall=int(matched.sum()) / len(boxes),
        ap=average_precision(scores, scores[matched], len(boxes)),
        num_truths=len(boxes),
        scores=scores,
        matched=matched,
    )


def _annotated_boxes(
    records: Sequence[Mapping[str, Any]], labelled_only: bool
) -> tuple[np.ndarray, np.ndarray]:
    boxes, images = [], []
    for i, record in enumerate(records):
        for annotation in record["annotations"]:
            if not (labelled_only and annotation["person_id"] == UNLABELLED):
                boxes.append(annotation["bbox"])
                images.append(i)
    return np.array(boxes, dtype=np.float64).reshape(-1, 4), np.array(images, dtype=np.int64)
