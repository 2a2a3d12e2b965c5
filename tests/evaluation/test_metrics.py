# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from kdps.evaluation.metrics import average_precision, iou_threshold, is_on_person, paired_iou

# Few distinct values, so that most examples have equal scores.
labelled_scores = st.lists(
    st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.75, 0.9]), st.booleans()), min_size=1, max_size=30
)


def test_average_precision_by_hand() -> None:
    # Right, wrong, right, and one truth never found: (1/1 + 2/3) / 3.
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    assert average_precision(scores, scores[[0, 2]], 3) == pytest.approx((1 + 2 / 3) / 3)


def test_equal_scores_are_one_step() -> None:
    # Two of four at one score: precision 1/2 for both, however they are sorted.
    scores = np.full(4, 0.5)
    assert average_precision(scores, scores[:2], 2) == pytest.approx(0.5)


def test_average_precision_without_positives_is_zero() -> None:
    assert average_precision(np.array([0.3, 0.2]), np.zeros(0), 2) == 0.0
    assert average_precision(np.zeros(0), np.zeros(0), 2) == 0.0


@given(labelled_scores, st.integers(0, 3))
def test_average_precision_is_sklearns_times_recall(
    rows: list[tuple[float, bool]], missed: int
) -> None:
    scores = np.array([score for score, _ in rows], dtype=np.float32)
    labels = np.array([label for _, label in rows])
    truths = labels.sum() + missed
    expected = 0.0
    if labels.any():
        expected = average_precision_score(labels, scores) * labels.sum() / truths
    assert average_precision(scores, scores[labels], max(truths, 1)) == pytest.approx(
        expected, abs=1e-12
    )


def test_iou_threshold_is_lower_for_tiny_boxes_only() -> None:
    boxes = np.array([[0, 0, 10, 20], [0, 0, 40, 80], [0, 0, 100, 200]])
    # 200 / (20 * 30) = 1/3; 3200 / (50 * 90) = 0.71, cut to 0.5.
    np.testing.assert_allclose(iou_threshold(boxes), [1 / 3, 0.5, 0.5])


def test_is_on_person_by_the_threshold_of_each_truth() -> None:
    truths = np.array([[0, 0, 20, 100], [0, 0, 20, 100], [0, 0, 8, 8], [5, 5, 5, 9]], float)
    boxes = np.array([[0, 0, 20, 50], [0, 0, 20, 49], [0, 0, 13, 13], [0, 0, 20, 20]], float)
    # IoU 0.5, 0.49, 0.38 (the threshold of the small one is 0.198), 0 with a truth without area.
    assert is_on_person(truths, boxes).tolist() == [True, False, True, False]


def test_paired_iou_has_no_one_pixel_margin() -> None:
    box = [0, 0, 10, 10]
    others = [box, [5, 0, 15, 10], [10, 0, 20, 10], [0, 0, 10, 5]]
    result = paired_iou(np.array([box] * 4), np.array(others))
    np.testing.assert_allclose(result, [1, 1 / 3, 0, 0.5])


def test_paired_iou_of_empty_boxes_is_zero() -> None:
    empty = np.array([[3.0, 3.0, 3.0, 3.0]])
    assert paired_iou(empty, empty).tolist() == [0.0]
