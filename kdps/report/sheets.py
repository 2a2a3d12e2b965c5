# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A query and its ranked hits on one picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kdps.report.cells import Cell
from kdps.utils.visualizer import Verdict

COLUMNS = 5
SHEET_SUFFIXES = (".png", ".jpg", ".jpeg")
CELL_SIZE = (180, 240)
_FRAME = 5
_GAP = 14
_MARGIN = 24
_LINE = 18
_TEXT_RGB = (32, 32, 32)
_FAINT_RGB = (96, 96, 96)


def compose_sheet(query: Cell, hits: Sequence[Cell], title: str, subtitle: str = "") -> np.ndarray:
    """Lay out a query and its hits: the query on the left, the hits in rows of five, a legend.

    Args:
        query: the person searched for.
        hits: best first; may be empty. Pictures of all cells have the size ``CELL_SIZE``.
        title: first line.
        subtitle: second line, smaller.

    Returns:
        (H, W, 3) uint8 RGB. The cell in row r and column c of the hits has its top left corner,
        frame included, at ``cell_corner(r, c + 1)``; the query's is ``cell_corner(0, 0)``.
    """
    columns = min(COLUMNS, max(len(hits), 2))
    rows = max(1, -(-len(hits) // COLUMNS))
    cell_w, cell_h = _outer_size()
    right, bottom = cell_corner(rows, columns + 1)
    canvas = Image.new("RGB", (right - _GAP + _MARGIN, bottom + _LINE + _MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    width = canvas.width - 2 * _MARGIN
    draw.text((_MARGIN, _MARGIN), _fit(title, 20, width, bold=True), _TEXT_RGB, _font(20, True))
    draw.text((_MARGIN, _MARGIN + 30), _fit(subtitle, 14, width), _FAINT_RGB, _font(14))

    _draw_cell(canvas, query, cell_corner(0, 0))
    for index, hit in enumerate(hits):
        row, column = divmod(index, COLUMNS)
        _draw_cell(canvas, hit, cell_corner(row, column + 1))
    # A rule sets the query apart from the ranking.
    x, top = cell_corner(0, 1)[0] - 2 * _GAP, cell_corner(0, 1)[1]
    draw.line((x, top, x, bottom - _GAP), fill=(208, 208, 208), width=1)
    if not hits:
        x, y = cell_corner(0, 1)
        draw.text((x, y + cell_h // 3), "no person found", _FAINT_RGB, _font(16))
    _draw_legend(draw, (_MARGIN, bottom), [query, *hits])
    return np.asarray(canvas)


def cell_corner(row: int, column: int) -> tuple[int, int]:
    """Top left pixel (x, y) of a cell of the sheet; column 0 is the query's."""
    cell_w, cell_h = _outer_size()
    x = _MARGIN + column * (cell_w + _GAP) + (3 * _GAP if column else 0)
    y = _MARGIN + 62 + row * (cell_h + 3 * _LINE + 2 * _GAP)
    return x, y


def save_sheet(sheet: np.ndarray, path: str | Path) -> None:
    """Write a sheet (RGB) in the format of the path's suffix."""
    # PNG takes no notice of the quality.
    Image.fromarray(sheet).save(path, quality=92)


def _outer_size() -> tuple[int, int]:
    return CELL_SIZE[0] + 2 * _FRAME, CELL_SIZE[1] + 2 * _FRAME


def _draw_cell(canvas: Image.Image, cell: Cell, corner: tuple[int, int]) -> None:
    draw = ImageDraw.Draw(canvas)
    x, y = corner
    width, height = _outer_size()
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=cell.verdict.rgb)
    canvas.paste(Image.fromarray(cell.picture), (x + _FRAME, y + _FRAME))
    if cell.verdict.mark:
        _draw_mark(draw, (x + width - 30, y), cell.verdict)
    y += height + 4
    draw.text((x, y), cell.heading, _TEXT_RGB, _font(15, True))
    indent = round(_font(15, True).getlength(cell.heading)) + 8
    for line in cell.lines:
        text = _fit(line, 13, width - indent)
        draw.text((x + indent, y + 2), text, _FAINT_RGB, _font(13))
        y, indent = y + _LINE, 0


def _draw_mark(draw: ImageDraw.ImageDraw, corner: tuple[int, int], verdict: Verdict) -> None:
    x, y = corner
    draw.rectangle((x, y, x + 29, y + 29), fill=verdict.rgb)
    draw.text((x + 15, y + 15), verdict.mark, "white", _font(20, True), anchor="mm")


def _draw_legend(draw: ImageDraw.ImageDraw, corner: tuple[int, int], cells: Sequence[Cell]) -> None:
    x, y = corner
    for verdict in Verdict:
        if any(cell.verdict is verdict for cell in cells):
            draw.rectangle((x, y, x + 17, y + 17), fill=verdict.rgb)
            draw.text((x + 9, y + 9), verdict.mark, "white", _font(14, True), anchor="mm")
            draw.text((x + 25, y + 9), verdict.meaning, _TEXT_RGB, _font(14), anchor="lm")
            x += 25 + round(_font(14).getlength(verdict.meaning)) + 24


def _fit(text: str, size: int, width: float, *, bold: bool = False) -> str:
    """Shorten a text in its middle until it fits; file names differ most at their ends."""
    font = _font(size, bold)
    if font.getlength(text) <= width:
        return text
    for keep in range(len(text) - 1, 0, -1):
        shorter = text[: keep // 2] + "\u2026" + text[len(text) - (keep - keep // 2) :]
        if font.getlength(shorter) <= width:
            return shorter
    return "\u2026"


@lru_cache(maxsize=16)
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
