# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps data show``: pictures with boxes and identities."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kdps.cli.data_source import add_source_arguments, sources_of
from kdps.cli.parsers import add_command
from kdps.errors import KdpsError

_EXAMPLE = """examples:
  kdps data show prw_test --num 8
  kdps data show --root ~/data/CUHK-SYSU --split test --person 11203 --output pictures"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``show`` to the group ``kdps data``."""
    summary = "draw boxes, identities and queries into images"
    parser = add_command(commands, "show", summary, _EXAMPLE, summary)
    add_source_arguments(parser)
    parser.add_argument(
        "--output",
        metavar="DIR",
        default="output/data",
        help="folder for the pictures; each set gets one in it (default: output/data)",
    )
    parser.add_argument(
        "--num", type=int, default=12, metavar="N", help="pictures per set (default: 12)"
    )
    parser.add_argument("--person", type=int, metavar="ID", help="only images of this identity")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the pictures and name their folders."""
    from kdps.data.show import choose_records, draw_record

    if args.num < 1:
        raise KdpsError(f"--num should be 1 or more, it is {args.num}")
    for source in sources_of(args):
        folder = Path(args.output) / source.name
        records = choose_records(source.load(), args.num, args.person)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for index, record in enumerate(records):
                # Flat and numbered: names that differ in folder or suffix only stay apart.
                image = Path(record["image_id"])
                name = "_".join(image.relative_to(image.anchor).parts)
                path = (folder / f"{index:03d}_{name}").with_suffix(".jpg")
                draw_record(record).save(str(path))
        except OSError as error:
            raise KdpsError(f"cannot write to {folder}: {error.strerror}") from error
        sys.stdout.write(f"{source.name}: {len(records)} pictures in {folder}\n")
