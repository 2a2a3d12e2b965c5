# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps gallery build``: find the persons of footage and keep them in an index."""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from kdps.cli.model_source import add_model_arguments, add_score_argument, inference_config
from kdps.cli.parsers import add_command
from kdps.engine.predictor import load_person_finder, model_identity
from kdps.errors import KdpsError
from kdps.footage.build import BuildSummary, GalleryBuilder
from kdps.footage.moments import parse_moment
from kdps.footage.sources import find_sources, share_of
from kdps.index.opening import open_index
from kdps.utils.requirements import require_av, require_pymilvus

_EXAMPLE = """examples:
  kdps gallery build --config-file configs/PRW/seqnet_R_50_C4.yaml --weights model_best.pth \\
      --input footage --index footage.db
  kdps gallery build --config-file configs/PRW/seqnet_R_50_C4.yaml --weights model_best.pth \\
      --input door.mp4 --camera door --start 2024-05-01T10:00:00 --index http://localhost:19530
  kdps gallery build --config-file configs/PRW/seqnet_R_50_C4.yaml --weights model_best.pth \\
      --input recordings.csv --shard 2/4 --index http://index.example:19530

Started again it goes on where it was stopped, and adds what is new or has changed. docs/footage.md
has the rest."""
_DEFAULT_RATE = 2.0
# Seconds that a process waits for the others that fill the same file.
_PATIENCE = 600.0


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand ``build``."""
    parser = add_command(
        commands,
        "build",
        "find the persons of photographs and videos and keep them in an index",
        _EXAMPLE,
        "Find the persons of photographs and videos, and keep their embeddings, boxes, scores, "
        "cameras and times in an index, which `kdps search --index` searches.",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--input",
        required=True,
        type=Path,
        metavar="PATH",
        help="folder (each subfolder is a camera), video, image, or list: a text file of paths, or "
        "a .csv with the columns path, camera, time",
    )
    parser.add_argument(
        "--index",
        required=True,
        metavar="WHERE",
        help="local file (.db) or address of a Milvus server; made if it is not there",
    )
    parser.add_argument("--camera", metavar="NAME", help="camera of all of the input")
    parser.add_argument(
        "--start",
        metavar="TIME",
        help="date at which the videos begin and images were taken, where no list says it: "
        "2024-05-01T10:30:00, UTC unless it names its offset. Without it a video counts from 0, "
        "and an image has the date of its EXIF data",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=_DEFAULT_RATE,
        metavar="FPS",
        help=f"frames of a video to look at per second (default: {_DEFAULT_RATE:g})",
    )
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="work through share I (from 1) of N only; other processes or machines do the others",
    )
    add_score_argument(parser)
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images at once; default: TEST.IMS_PER_BATCH"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Build or go on with the index.

    Raises:
        KdpsError: a file, an option, the config or the index is at fault.
    """
    cfg = inference_config(args)
    if args.batch_size is not None:
        if args.batch_size < 1:
            raise KdpsError(f"--batch-size: must be at least 1, not {args.batch_size}")
        cfg.TEST.IMS_PER_BATCH = args.batch_size
    if not 0 < args.rate < float("inf"):
        raise KdpsError(f"--rate: must be above 0, not {args.rate:g}")
    share = _share(args.shard) if args.shard else None
    start = parse_moment(args.start, "--start") if args.start else None
    sources = find_sources(args.input, args.camera, start)
    if share is not None:
        sources = share_of(sources, *share)
    require_pymilvus()
    if any(source.is_video for source in sources):
        require_av()

    model = load_person_finder(cfg)
    identity = model_identity(model)
    if share is None:
        with open_index(args.index, identity) as index:
            builder = GalleryBuilder(cfg, model, lambda: nullcontext(index), args.rate)
            summary = builder.run(sources)
            persons = len(index)
    else:
        # The others have their turns while this one's model works.
        turn = partial(open_index, args.index, identity, _PATIENCE)
        summary = GalleryBuilder(cfg, model, turn, args.rate).run(sources)
        with turn() as index:
            persons = len(index)
    sys.stdout.write(_told(summary, args.index, persons))


def _share(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    number, shares = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= shares:
        raise KdpsError(f"--shard: {text!r} is not I/N with I from 1 to N, such as 2/4")
    return number, shares


def _told(summary: BuildSummary, where: str, persons: int) -> str:
    lines = [
        f"Looked at {summary.frames} frames of {summary.sources} sources and found "
        f"{summary.persons} persons."
    ]
    if summary.done_before:
        lines.append(f"{summary.done_before} sources were in the index already.")
    if summary.faults:
        lines.append(f"{len(summary.faults)} sources could not be read in whole (named above).")
    if summary.passing:
        lines.append(f"{summary.passing} of them will be tried again by the next build.")
    lines.append(f"{where} holds {persons} persons.")
    return "\n".join(lines) + "\n"
