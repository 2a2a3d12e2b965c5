# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from kdps.modeling.roi_heads.cell_labels import cell_labels


def slow_labels(region, box, size):
    """Paints the mask pixel by pixel and resizes it."""
    x1, y1, x2, y2 = region
    low_x, low_y = max(x1, box[0]), max(y1, box[1])
    high_x, high_y = min(x2, box[2]), min(y2, box[3])
    mask = torch.zeros(1, 1, math.ceil(y2 - y1), math.ceil(x2 - x1))
    if low_x >= high_x or low_y >= high_y:
        return torch.zeros(size)
    for y in range(math.floor(low_y - y1), math.ceil(high_y - y1) + 1):
        for x in range(math.floor(low_x - x1), math.ceil(high_x - x1) + 1):
            if y < mask.shape[2] and x < mask.shape[3]:
                mask[0, 0, y, x] = 1
    return F.interpolate(mask, size, mode="bilinear", align_corners=False)[0, 0]


def labels_of(region, box, size=(7, 7)):
    return cell_labels(torch.tensor([region]), torch.tensor([box]), size)[0]


def test_by_hand():
    # Four cells of 4 pixels; the box ends in pixel 5, and pixel 6 counts as well. The centre of the
    # second cell lies between pixels 5 and 6, that of the third between 9 and 10.
    region, box = [0.0, 0.0, 16.0, 16.0], [0.0, 0.0, 6.0, 16.0]
    expected = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(4, 4)
    assert torch.equal(labels_of(region, box, (4, 4)), expected)
    # One pixel less, and half of it is left.
    box[2] = 5.0
    expected = torch.tensor([1.0, 0.5, 0.0, 0.0]).expand(4, 4)
    assert torch.equal(labels_of(region, box, (4, 4)), expected)


@pytest.mark.parametrize(
    "box",
    [
        *([-20.0, 0, -5, 16], [30.0, 0, 40, 16], [0.0, -30, 16, -10], [0.0, 20, 16, 40]),
        [16.0, 0, 20, 16],
    ],
)
def test_no_overlap(box):
    assert not labels_of([0.0, 0.0, 16.0, 16.0], box).any()


def test_regions_without_area_and_no_regions():
    assert not labels_of([3.0, 3, 3, 9], [0.0, 0, 9, 9]).any()
    assert cell_labels(torch.zeros(0, 4), torch.zeros(0, 4), (7, 7)).shape == (0, 7, 7)


intervals = st.tuples(st.integers(0, 300), st.integers(4, 240)).map(
    lambda pair: (pair[0] / 4, pair[0] / 4 + pair[1] / 4)
)
boxes = st.tuples(intervals, intervals).map(lambda xy: [xy[0][0], xy[1][0], xy[0][1], xy[1][1]])


@settings(max_examples=200, deadline=None)
@given(boxes, boxes, st.sampled_from([(7, 7), (3, 5), (1, 1)]))
def test_as_painted(region, box, size):
    torch.testing.assert_close(labels_of(region, box, size), slow_labels(region, box, size))
