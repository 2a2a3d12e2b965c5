# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from kdps.data.records import make_annotation
from kdps.errors import KdpsError
from kdps.evaluation.detection import score_detections
from kdps.structures.detections import Detections

A, B, C = (0, 0, 10, 20), (4, 0, 14, 20), (100, 0, 110, 20)
Image = tuple[list[tuple[tuple[int, ...], float]], list[tuple[tuple[int, ...], int]]]


def make_set(images: list[Image]) -> tuple[Detections, list[dict[str, Any]]]:
    """Detections and records of images given as ([(box, score)], [(box, person_id)])."""
    rows = [[*box, score] for found, _ in images for box, score in found]
    detections = Detections(
        names=tuple(f"s{i}" for i in range(len(images))),
        det_count=np.array([len(found) for found, _ in images]),
        det=np.array(rows, dtype=np.float32).reshape(-1, 5),
        emb=np.ones((len(rows), 1), dtype=np.float32),
        query_emb=np.ones((1, 1), dtype=np.float32),
    )
    records = [
        {"image_id": name, "annotations": [make_annotation(*person) for person in people]}
        for name, (_, people) in zip(detections.names, images, strict=True)
    ]
    return detections, records


def test_by_hand() -> None:
    # Right, wrong, right, and a person in an image without detections: (1 + 2/3) / 3.
    images: list[Image] = [
        ([(A, 0.9), (C, 0.8)], [(A, 1)]),
        ([(B, 0.7)], [(B, -1)]),
        ([], [(A, 2)]),
    ]
    result = score_detections(*make_set(images))
    assert (result.num_detections, result.num_matched, result.num_truths) == (3, 2, 3)
    assert result.metrics() == pytest.approx({"recall": 200 / 3, "AP": 100 * (1 + 2 / 3) / 3})
    np.testing.assert_allclose(result.scores, [0.9, 0.8, 0.7], rtol=1e-6)
    assert result.matched.tolist() == [True, False, True]
    recall, precision = result.curve()
    np.testing.assert_allclose(recall, [1 / 3, 1 / 3, 2 / 3])
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3])


def test_equal_scores_are_one_point_of_the_curve() -> None:
    images: list[Image] = [([(A, 0.5), (C, 0.5)], [(A, 1)]), ([(B, 0.25)], [(B, -1)])]
    recall, precision = score_detections(*make_set(images)).curve()
    np.testing.assert_allclose(recall, [1 / 2, 1])
    np.testing.assert_allclose(precision, [1 / 2, 2 / 3])


def test_nothing_detected() -> None:
    result = score_detections(*make_set([([], [(A, 1)])]))
    assert (result.num_detections, result.num_matched, result.num_truths) == (0, 0, 1)
    assert (result.recall, result.ap) == (0, 0)
    assert [len(values) for values in result.curve()] == [0, 0]


def test_a_second_detection_on_a_person_is_wrong() -> None:
    result = score_detections(*make_set([([(A, 0.5), ((1, 0, 11, 20), 0.9)], [(A, 1)])]))
    # The better box wins, though the other one has the higher score.
    assert (result.num_matched, result.ap) == (1, 0.5)


def test_labelled_only() -> None:
    images: list[Image] = [
        ([(A, 0.9), (C, 0.8)], [(A, 1), (C, -1)]),
        ([(A, 0.7)], [(A, -1)]),
    ]
    detections, records = make_set(images)
    assert score_detections(detections, records).recall == 1
    labelled = score_detections(detections, records, labelled_only=True)
    # The second image is left out; the unlabelled person of the first is a false positive.
    assert (labelled.num_detections, labelled.num_matched, labelled.num_truths) == (2, 1, 1)
    assert (labelled.recall, labelled.ap) == (1, 1)


def test_thresholds_are_reached_by_equality() -> None:
    detections, records = make_set([([((0, 0, 10, 10), 0.25)], [(A, 1)])])
    assert score_detections(detections, records, score_thresh=0.25).recall == 1
    assert score_detections(detections, records, score_thresh=0.26).recall == 0
    assert score_detections(detections, records, iou_thresh=0.51).recall == 0


def test_errors() -> None:
    detections, records = make_set([([(A, 0.9)], [(A, -1)])])
    with pytest.raises(KdpsError, match="no annotated person"):
        score_detections(detections, records, labelled_only=True)
    with pytest.raises(KdpsError, match="but the test set has"):
        score_detections(detections, records * 2)


boxes = st.sampled_from([A, B, C, (0, 0, 10, 10), (4, 0, 14, 21), (2, 0, 12, 20)])
images = st.lists(
    st.tuples(
        st.lists(st.tuples(boxes, st.sampled_from([0.3, 0.6, 0.9])), max_size=4),
        st.lists(st.tuples(boxes, st.sampled_from([-1, 1])), max_size=4),
    ),
    min_size=1,
    max_size=4,
)


def iou(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return w * h / (area - w * h)


@settings(max_examples=200)
@given(images, st.booleans())
def test_equals_a_slow_reference(world: list[Image], labelled_only: bool) -> None:
    labels, scores, truths = [], [], 0
    for found, people in world:
        wanted = [box for box, pid in people if pid >= 0 or not labelled_only]
        truths += len(wanted)
        if labelled_only and not wanted:
            continue
        for i, (box, score) in enumerate(found):
            overlaps = [iou(box, person) for person in wanted]
            best = overlaps.index(max(overlaps)) if overlaps else None
            mutual = best is not None and i == max(
                range(len(found)), key=lambda j, best=best: (iou(found[j][0], wanted[best]), -j)
            )
            labels.append(bool(mutual and overlaps[best] >= 0.5))
            scores.append(score)
    detections, records = make_set(world)
    if not truths:
        with pytest.raises(KdpsError):
            score_detections(detections, records, labelled_only=labelled_only)
        return
    result = score_detections(detections, records, labelled_only=labelled_only)
    recall = sum(labels) / truths
    assert result.recall == pytest.approx(recall)
    expected = average_precision_score(labels, scores) * recall if any(labels) else 0
    assert result.ap == pytest.approx(expected, abs=1e-12)
    assert result.num_detections == len(labels)
    curve_recall, curve_precision = result.curve()
    steps = np.diff(curve_recall, prepend=0)
    assert (steps * curve_precision).sum() == pytest.approx(expected, abs=1e-12)
