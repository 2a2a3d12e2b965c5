# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Options by which a search is told who is searched for."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate
from torch import Tensor

from kdps.errors import KdpsError
from kdps.footage.moments import Clock, parse_moment
from kdps.footage.sources import Source
from kdps.footage.video import VideoReader
from kdps.report.persons import numbered_persons
from kdps.report.sheets import save_sheet
from kdps.search.images import read_bgr
from kdps.search.searcher import Person, PersonSearcher

logger = logging.getLogger(__name__)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class QueryScene:
    """The image of a query.

    Attributes:
        path: of the image or video.
        image: (H, W, 3) uint8 BGR.
        stamp: time stamp of the frame in a video; 0 for an image.
        box: XYXY absolute pixels of the person; None if one of those detected is to be chosen.
    """

    path: Path
    image: np.ndarray
    stamp: int
    box: Box | None


def add_query_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--query``, ``--at``, ``--box`` and ``--person``."""
    parser.add_argument(
        "--query", required=True, type=Path, metavar="IMAGE", help="image or video with the person"
    )
    parser.add_argument(
        "--at",
        metavar="TIME",
        help="of a video, the time of the frame with the person since its beginning: 0:01:30",
    )
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--box",
        nargs=4,
        type=float,
        metavar=("X", "Y", "W", "H"),
        help="the person's box in pixels: left, top, width, height; without it, the persons "
        "detected are shown with numbers, of which one is chosen",
    )
    who.add_argument("--person", type=int, metavar="N", help="number of the person, as shown")


def read_query(args: argparse.Namespace) -> QueryScene:
    """The scene that ``--query``, ``--at`` and ``--box`` name.

    Raises:
        KdpsError: it cannot be read, the time is missing or of no use, or the box is outside.
    """
    image, stamp = _read(args)
    box = None
    if args.box is not None:
        box = _box_in_image(args.box, image.shape[1], image.shape[0], args.query)
    return QueryScene(args.query, image, stamp, box)


def _read(args: argparse.Namespace) -> tuple[np.ndarray, int]:
    if not Source.of_name(str(args.query)).is_video:
        if args.at is not None:
            raise KdpsError(f"--at: {args.query} is no video")
        return read_bgr(args.query), 0
    if args.at is None:
        raise KdpsError(f"--at: say at which time of the video {args.query} the person is seen")
    moment = parse_moment(args.at, "--at")
    if moment.clock is not Clock.RECORDING:
        raise KdpsError(f"--at: {args.at!r} has to count from the beginning of the video (0:01:30)")
    frame = VideoReader(args.query).frame_after(moment.microseconds)
    return frame.image, frame.stamp


def choose_person(
    args: argparse.Namespace, searcher: PersonSearcher, scene: QueryScene
) -> tuple[Box, Tensor]:
    """Box (XYXY) and embedding of the person that ``--box``, ``--person`` or an answer names.

    Where nobody is named, a picture of all is written beside ``--output``, and who sits at the
    terminal is asked.

    Raises:
        KdpsError: there is no person of this number, or nobody is there to answer.
    """
    if scene.box is not None:
        return scene.box, searcher.embed(scene.image, scene.box)
    persons = searcher.persons(scene.image)
    if not persons:
        raise KdpsError(f"--query: nobody is detected in {scene.path}; name a --box")
    number = args.person
    if number is None:
        number = _ask(args.output, scene, persons)
    if not 1 <= number <= len(persons):
        raise KdpsError(
            f"--person: there is no number {number} among the {len(persons)} persons detected in "
            f"{scene.path}"
        )
    return persons[number - 1].box, persons[number - 1].embedding


def _ask(output: Path, scene: QueryScene, persons: Sequence[Person]) -> int:
    picture = output.with_name(f"{output.stem}_persons{output.suffix}")
    boxes = [person.box for person in persons]
    save_sheet(numbered_persons(scene.image[:, :, ::-1], boxes), picture)
    rows = [
        (number, person.score, f"{x0:.0f} {y0:.0f} {x1 - x0:.0f} {y1 - y0:.0f}")
        for number, person in enumerate(persons, 1)
        for x0, y0, x1, y1 in [person.box]
    ]
    table = tabulate(
        rows,
        headers=["number", "score", "box (x y w h)"],
        floatfmt=("", ".3f"),
        disable_numparse=[2],
    )
    sys.stdout.write(f"{table}\n\nThe persons are numbered in {picture}\n")
    if not sys.stdin.isatty():
        raise KdpsError("--person: name the number of the person to search for")
    sys.stdout.write("Number of the person to search for: ")
    sys.stdout.flush()
    answer = sys.stdin.readline().strip()
    if not answer.isdecimal():
        raise KdpsError(f"--person: {answer!r} is no number")
    return int(answer)


def _box_in_image(xywh: Sequence[float], width: int, height: int, path: Path) -> Box:
    """XYWH to XYXY, cut at the image's border."""
    x, y, w, h = xywh
    text = " ".join(f"{value:g}" for value in xywh)
    if not all(math.isfinite(value) for value in xywh) or w <= 0 or h <= 0:
        raise KdpsError(f"--box: {text} is no box X Y W H with a width and height above 0")
    box = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    if box[2] - box[0] < 1 or box[3] - box[1] < 1:
        raise KdpsError(
            f"--box: {text} (X Y W H) has less than a pixel in the {width}x{height} image {path}"
        )
    if box != (x, y, x + w, y + h):
        logger.warning("--box: %s leaves the %dx%d image and was cut", text, width, height)
    return box
