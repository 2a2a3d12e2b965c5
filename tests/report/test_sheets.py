# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdps.report.cells import Cell
from kdps.report.sheets import CELL_SIZE, cell_corner, compose_sheet, save_sheet
from kdps.utils.visualizer import Verdict

WIDTH, HEIGHT = CELL_SIZE
VERDICTS = [Verdict.RIGHT, Verdict.WRONG, Verdict.UNKNOWN, Verdict.HIT]


def make_cell(verdict: Verdict, value: int, lines: tuple[str, ...] = ("file.jpg",)) -> Cell:
    picture = np.full((HEIGHT, WIDTH, 3), value, dtype=np.uint8)
    return Cell(picture, verdict, str(value), lines)


def make_sheet(number: int) -> np.ndarray:
    hits = [make_cell(VERDICTS[i % 4], 100 + i) for i in range(number)]
    return compose_sheet(make_cell(Verdict.QUERY, 50), hits, "title", "subtitle")


@pytest.mark.parametrize("number", [1, 4, 5, 7, 10])
def test_every_cell_has_its_picture_and_frame(number: int) -> None:
    sheet = make_sheet(number)
    places = [(0, 0, Verdict.QUERY, 50)]
    places += [(i // 5, i % 5 + 1, VERDICTS[i % 4], 100 + i) for i in range(number)]
    for row, column, verdict, value in places:
        x, y = cell_corner(row, column)
        assert sheet[y + 100, x + 1].tolist() == list(verdict.rgb)
        assert sheet[y + HEIGHT + 8, x + 60].tolist() == list(verdict.rgb)
        assert sheet[y + HEIGHT // 2, x + WIDTH // 2].tolist() == [value] * 3
        assert (sheet[y + 40 : y + HEIGHT, x + 20 : x + WIDTH] == value).all()


def test_no_more_cells_than_hits() -> None:
    sheet = make_sheet(7)
    for column in (3, 4, 5):
        x, y = cell_corner(1, column)
        assert (sheet[y : y + HEIGHT, x : x + WIDTH] == 255).all()


def test_rows_of_five() -> None:
    heights = {number: make_sheet(number).shape[0] for number in (1, 5, 6, 10, 11)}
    assert heights[1] == heights[5] < heights[6] == heights[10] < heights[11]
    assert make_sheet(5).shape[1] == make_sheet(11).shape[1]


def test_marks_stand_on_judged_cells_only() -> None:
    sheet = make_sheet(4)
    for column, verdict in enumerate(VERDICTS, start=1):
        x, y = cell_corner(0, column)
        badge = sheet[y + 6 : y + 28, x + WIDTH - 16 : x + WIDTH + 4].reshape(-1, 3)
        covered = (badge == verdict.rgb).all(axis=1).mean()
        assert (covered > 0.5) == bool(verdict.mark)


def test_legend_names_the_verdicts_that_occur() -> None:
    def colours_of_last_lines(sheet: np.ndarray) -> set[tuple[int, ...]]:
        return {tuple(pixel) for pixel in sheet[-42:].reshape(-1, 3).tolist()}

    few, all_kinds = colours_of_last_lines(make_sheet(1)), colours_of_last_lines(make_sheet(4))
    assert {Verdict.QUERY.rgb, Verdict.RIGHT.rgb} <= few
    assert Verdict.WRONG.rgb not in few
    assert {verdict.rgb for verdict in Verdict} <= all_kinds


def test_no_hits() -> None:
    sheet = compose_sheet(make_cell(Verdict.QUERY, 50), [], "title")
    x, y = cell_corner(0, 1)
    words = sheet[y : y + HEIGHT, x : x + WIDTH]
    assert (words < 128).any()
    assert (words > 250).mean() > 0.9


def test_long_names_stay_inside_their_cell() -> None:
    long = make_cell(Verdict.HIT, 100, ("a" * 300,))
    sheet = compose_sheet(make_cell(Verdict.QUERY, 50), [long], "t" * 400, "s" * 400)
    x, y = cell_corner(0, 1)
    below = sheet[y + HEIGHT + 12 : y + HEIGHT + 40]
    assert (below[:, x + WIDTH + 12 :] == 255).all()
    assert (sheet[:, -20:] == 255).all()


@pytest.mark.parametrize("name", ["sheet.png", "sheet.jpg", "sheet.jpeg"])
def test_save(tmp_path: Path, name: str) -> None:
    sheet = make_sheet(2)
    save_sheet(sheet, tmp_path / name)
    with Image.open(tmp_path / name) as image:
        loaded = np.asarray(image.convert("RGB"))
    assert np.abs(loaded.astype(int) - sheet).mean() < 2
