# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""One MOTChallenge sequence: ``img1/000001.jpg ...``, ``gt/gt.txt`` and ``seqinfo.ini``."""

from __future__ import annotations

import configparser
import math
from dataclasses import dataclass
from pathlib import Path

from kdps.data.datasets.files import list_folder, read_text, require_entries
from kdps.errors import KdpsError, one_line

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
_PEDESTRIAN = 1


@dataclass(frozen=True)
class MOTRow:
    """One row of ``gt.txt``: ``bbox`` is XYXY in absolute pixels."""

    frame: int
    track: int
    bbox: tuple[float, float, float, float]


@dataclass(frozen=True)
class MOTSequence:
    """Annotations and images of one sequence.

    Attributes:
        rows: pedestrians that MOTChallenge evaluates, in file order.
        images: frame number -> image.
        frame_rate: frame numbers per second.
    """

    rows: tuple[MOTRow, ...]
    images: dict[int, Path]
    frame_rate: float


def read_sequence(folder: Path, gt_file: str = "gt/gt.txt") -> MOTSequence:
    """Read one sequence.

    Coordinates are taken as they are, without the offset of one pixel that MOTChallenge's
    documentation speaks of, as the field's trackers do.

    Raises:
        KdpsError: a file is missing or damaged, or a row has no image.
    """
    require_entries(folder, ("seqinfo.ini", gt_file), "MOTChallenge")
    image_dir, frame_rate = _read_info(folder / "seqinfo.ini")
    images = _list_images(folder / image_dir)
    path = folder / gt_file
    rows = read_rows(path)
    for row in rows:
        if row.frame not in images:
            raise KdpsError(f"{path}: frame {row.frame} has no image in {folder / image_dir}")
    return MOTSequence(tuple(rows), images, frame_rate)


def read_rows(path: Path) -> list[MOTRow]:
    """The pedestrians of a ``gt.txt`` that MOTChallenge evaluates, in file order.

    Raises:
        KdpsError: the file is missing or damaged.
    """
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            row = _parse_row(line, f"{path}, line {number}")
            if row is not None:
                rows.append(row)
    return rows


def _read_info(path: Path) -> tuple[str, float]:
    parser = configparser.ConfigParser()
    try:
        parser.read_string(read_text(path))
        section = parser["Sequence"]
        frame_rate = section.getfloat("frameRate", fallback=math.nan)
    except (configparser.Error, KeyError, ValueError) as error:
        raise KdpsError(f"{path} is damaged ({one_line(error)})") from error
    if not frame_rate > 0:
        raise KdpsError(f"{path}: frameRate should be a positive number")
    return section.get("imDir", "img1"), frame_rate


def _list_images(folder: Path) -> dict[int, Path]:
    images: dict[int, Path] = {}
    for path in list_folder(folder):
        if path.suffix.lower() in _IMAGE_SUFFIXES and path.stem.isdigit():
            if int(path.stem) in images:
                raise KdpsError(f"{folder} holds two images of frame {int(path.stem)}")
            images[int(path.stem)] = path
    if not images:
        raise KdpsError(f"{folder} holds no image named by its frame number")
    return images


def _parse_row(line: str, where: str) -> MOTRow | None:
    """The row, or None for one that MOTChallenge does not evaluate."""
    try:
        values = [float(value) for value in line.split(",")]
        frame, track = int(values[0]), int(values[1])
        x, y, w, h = values[2:6]
    except (ValueError, OverflowError):
        raise KdpsError(f"{where}: expected 'frame,id,x,y,width,height,...': {line!r}") from None
    if not (values[0].is_integer() and values[1].is_integer()):
        raise KdpsError(f"{where}: frame and id should be whole numbers: {line!r}")
    if not all(map(math.isfinite, (x, y, w, h))):
        raise KdpsError(f"{where}: a coordinate is no number: {line!r}")
    if track < 0:
        raise KdpsError(f"{where}: unknown identity {track} (known: 0 upwards)")
    if len(values) > 6 and values[6] == 0:
        return None
    # Column 8 is the class in files of 9 columns (MOT16 on); in MOT15's 10 it is a 3-D position.
    if len(values) in (8, 9) and values[7] != _PEDESTRIAN:
        return None
    return MOTRow(frame, track, (x, y, x + w, y + h))
