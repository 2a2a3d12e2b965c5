# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch

from kdps.modeling.inclusive_boxes import InclusiveBoxTransform, clip_inclusive, enlarged


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_enlarged():
    assert enlarged(boxes([1, 2, 3, 4]), 1.0).tolist() == [[1, 2, 4, 5]]
    assert enlarged(boxes([1, 2, 3, 4]), -2.0).tolist() == [[1, 2, 1, 2]]


def test_golden_deltas():
    transform = InclusiveBoxTransform((10.0, 10.0, 5.0, 5.0))
    # 10 x 20 pixels become 20 x 20, with the middle 5 further right.
    deltas = transform.get_deltas(boxes([0, 0, 9, 19]), boxes([0, 0, 19, 19]))
    torch.testing.assert_close(deltas, boxes([10 * 0.5, 0, 5 * math.log(2), 0]))


@pytest.mark.parametrize("pixel", [1.0, 0.5])
def test_applying_undoes(pixel):
    transform = InclusiveBoxTransform((10.0, 10.0, 5.0, 5.0))
    source, target = boxes([3, 4, 12, 30], [0, 0, 9, 9]), boxes([5, 1, 11, 40], [0, 0, 0, 0])
    deltas = transform.get_deltas(source, target)
    moved = transform.apply_deltas(deltas, source * pixel, pixel)
    torch.testing.assert_close(moved, target * pixel, rtol=1e-5, atol=1e-5)


def test_no_size_is_too_large():
    transform = InclusiveBoxTransform((1.0, 1.0, 1.0, 1.0))
    moved = transform.apply_deltas(boxes([0, 0, 8, 0]), boxes([0, 0, 0, 0]))
    assert moved[0, 2] - moved[0, 0] + 1 == pytest.approx(math.exp(8), rel=1e-5)


def test_clipped_to_the_last_pixel():
    clipped = clip_inclusive(boxes([-5, -5, 200, 99], [50, 10, 60, 20]), (100, 150))
    assert clipped.tolist() == [[0, 0, 149, 99], [50, 10, 60, 20]]
    clipped = clip_inclusive(boxes([-5, -5, 200, 200]), (100, 150), pixel=2.0)
    assert clipped.tolist() == [[0, 0, 148, 98]]
