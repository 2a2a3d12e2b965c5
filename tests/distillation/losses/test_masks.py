# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch
from distill_rows import seen
from hypothesis import given
from hypothesis import strategies as st

from kdps.distillation.losses.masks import person_masks


def test_by_hand():
    # Cells of 8 x 8 pixels. The first box covers four cells, the second one of them alone.
    outputs = seen(targets=[[[0, 0, 16, 16], [9, 1, 15, 7]]], padded=(24, 24))
    foreground, background = person_masks(outputs, (3, 3))
    assert foreground[0].tolist() == [[0.25, 1.0, 0.0], [0.25, 0.25, 0.0], [0.0, 0.0, 0.0]]
    assert background[0].tolist() == pytest.approx(
        torch.tensor([[0, 0, 0.2], [0, 0, 0.2], [0.2, 0.2, 0.2]])
    )


def test_padding_and_empty_images():
    outputs = seen(targets=[[], [[0, 0, 24, 24]]], sizes=[(24, 16), (8, 24)], padded=(24, 24))
    foreground, background = person_masks(outputs, (3, 3))
    assert foreground[0].sum() == 0
    assert background[0].sum().item() == pytest.approx(1.0)
    assert background[0][:, 2].sum() == 0
    # The box fills the image, of which one row of cells is there.
    assert foreground[1][0].tolist() == pytest.approx([1 / 9] * 3)
    assert foreground[1][1:].sum() == background[1].sum() == 0


def slow_masks(boxes, size, padded, cells):
    """One image, box by box and cell by cell."""
    height, width = cells
    foreground = [[0.0] * width for _ in range(height)]
    for x1, y1, x2, y2 in boxes:
        left = min(max(math.floor(x1 * width / padded[1]), 0), width - 1)
        top = min(max(math.floor(y1 * height / padded[0]), 0), height - 1)
        right = max(left, min(max(math.ceil(x2 * width / padded[1]) - 1, 0), width - 1))
        bottom = max(top, min(max(math.ceil(y2 * height / padded[0]) - 1, 0), height - 1))
        share = 1 / ((right - left + 1) * (bottom - top + 1))
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                foreground[y][x] = max(foreground[y][x], share)
    free = []
    for y in range(height):
        for x in range(width):
            inside = y * padded[0] / height < size[0] and x * padded[1] / width < size[1]
            if not inside:
                foreground[y][x] = 0.0
            elif foreground[y][x] == 0.0:
                free.append((y, x))
    background = [[0.0] * width for _ in range(height)]
    for y, x in free:
        background[y][x] = 1 / len(free)
    return foreground, background


# Whole pixels on a map of the same ratio, so that both find the same borders.
sides = st.integers(0, 32)
boxes = st.lists(
    st.tuples(sides, sides, sides, sides).map(
        lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
    ),
    max_size=4,
)
images = st.lists(st.tuples(boxes, st.integers(1, 32), st.integers(1, 32)), min_size=1, max_size=3)


@given(images)
def test_as_box_by_box(batch):
    outputs = seen(
        targets=[own for own, _, _ in batch],
        sizes=[(height, width) for _, height, width in batch],
        padded=(32, 32),
    )
    foreground, background = person_masks(outputs, (4, 8))
    for i, (own, height, width) in enumerate(batch):
        slow = slow_masks(own, (height, width), (32, 32), (4, 8))
        assert torch.allclose(foreground[i], torch.tensor(slow[0]))
        assert torch.allclose(background[i], torch.tensor(slow[1]))
