# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.structures import Boxes
from hypothesis import given
from hypothesis import strategies as st

from kdps.modeling.dense_heads import CellGrid, match_cells

CPU = torch.device("cpu")


def test_boxes_of_cells():
    boxes = CellGrid(2, 3, stride=8).boxes(CPU)
    assert boxes.tolist()[0] == [0, 0, 8, 8]
    assert boxes.tolist()[2] == [16, 0, 24, 8]
    assert boxes.tolist()[3] == [0, 8, 8, 16]


def test_what_an_image_reaches():
    grid = CellGrid(8, 12, stride=8)
    assert grid.covered((64, 96)) == (8, 12)
    assert grid.covered((57, 41)) == (8, 6)
    assert grid.covered((56, 40)) == (7, 5)


def test_cells_that_hold_points():
    grid = CellGrid(8, 12, stride=8)
    points = torch.tensor([[0.0, 0], [7.9, 8], [40, 20], [-50, 20], [95, 500]])
    # The image reaches 5 columns and 6 rows.
    assert grid.index_of(points, (48, 40)).tolist() == [0, 12, 2 * 12 + 4, 2 * 12, 5 * 12 + 4]
    assert grid.index_of(torch.zeros(0, 2), (48, 40)).tolist() == []
    # A backbone may make fewer cells than the image reaches.
    assert CellGrid(7, 12, stride=8).index_of(points[-1:], (64, 96)).tolist() == [6 * 12 + 11]


@pytest.mark.parametrize(
    ("box", "radius", "expected"),
    [
        # Centre (20, 20): points 4, 12, 20, 28, 36; those less than 12 away.
        ([0, 0, 40, 40], 1.5, {(y, x) for y in (1, 2, 3) for x in (1, 2, 3)}),
        ([0, 0, 40, 40], 0.5, {(2, 2)}),
        # A narrow one ends before the radius does.
        ([17, 0, 23, 40], 1.5, {(1, 2), (2, 2), (3, 2)}),
        # Between all points.
        ([21, 21, 27, 27], 1.5, set()),
        # A point on the border is not inside.
        ([20, 12, 28, 20], 1.5, set()),
    ],
    ids=str,
)
def test_centre_sampling_by_hand(box, radius, expected):
    grid = CellGrid(5, 5, stride=8)
    matched = match_cells(grid.boxes(CPU), Boxes(torch.tensor([box], dtype=torch.float32)), radius)
    found = (matched >= 0).nonzero().flatten().tolist()
    assert {divmod(i, 5) for i in found} == expected


def test_the_smaller_person_is_in_front():
    grid = CellGrid(5, 5, stride=8)
    boxes = Boxes(torch.tensor([[0.0, 0, 40, 40], [8, 8, 32, 40], [0, 0, 40, 40]]))
    matched = match_cells(grid.boxes(CPU), boxes, 1.5)
    assert matched[2 * 5 + 2] == 1
    assert matched[1 * 5 + 1] == 0


def test_nobody():
    cells = CellGrid(2, 2, stride=8).boxes(CPU)
    assert match_cells(cells, Boxes(torch.zeros(0, 4)), 1.5).tolist() == [-1] * 4


@given(count=st.integers(1, 6), radius=st.sampled_from([0.5, 1.0, 1.5]), seed=st.integers(0, 1000))
def test_equals_asking_each_cell(count, radius, seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 40
    boxes = torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * 40 + 1], 1)
    matched = match_cells(CellGrid(7, 9, stride=8).boxes(CPU), Boxes(boxes), radius)
    for cell in range(63):
        y, x = 8 * (cell // 9) + 4.0, 8 * (cell % 9) + 4.0
        candidates = []
        for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            near = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < radius * 8
            if near and x1 < x < x2 and y1 < y < y2:
                candidates.append(((x2 - x1) * (y2 - y1), i))
        assert matched[cell] == (min(candidates)[1] if candidates else -1)


def test_the_cell_of_a_box_s_centre_is_one_that_finds_it():
    boxes = Boxes(torch.tensor([[3.0, 5, 30, 70], [40, 10, 69, 61]]))
    grid = CellGrid(10, 10, stride=8)
    matched = match_cells(grid.boxes(CPU), boxes, 1.5)
    assert matched[grid.index_of(boxes.get_centers(), (80, 80))].tolist() == [0, 1]
