# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps gallery expire``: remove the persons of an index that were seen too long ago."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timedelta, timezone

from kdps.cli.parsers import add_command
from kdps.errors import KdpsError
from kdps.footage.moments import Clock, Moment, moment_of_date, parse_moment
from kdps.index.expiry import expire
from kdps.index.selection import Selection

_EXAMPLE = """examples:
  kdps gallery expire --index footage.db --keep-days 30
  kdps gallery expire --index http://localhost:19530 --camera yard --before 2024-05-01

Every day, by cron, after the build: 0 3 * * *  kdps gallery expire --index ... --keep-days 30"""
# Seconds that it waits for a build to end, or for the page to be closed.
_PATIENCE = 600.0


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand ``expire``."""
    parser = add_command(
        commands,
        "expire",
        "remove the persons that were seen too long ago from an index",
        _EXAMPLE,
        "Remove the persons that were seen before a date from an index: their embeddings, boxes "
        "and times. The footage itself is left alone; its paths stay in the index, so that a later "
        "build does not look at it again.",
    )
    parser.add_argument(
        "--index",
        required=True,
        metavar="WHERE",
        help="local file (.db) or address of a Milvus server",
    )
    limit = parser.add_mutually_exclusive_group(required=True)
    limit.add_argument(
        "--before",
        metavar="DATE",
        help="remove what was seen earlier, UTC unless it names an offset",
    )
    limit.add_argument(
        "--keep-days", type=float, metavar="N", help="remove what was seen more than N days ago"
    )
    parser.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="NAME",
        help="of this camera only; can be repeated",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Remove, and tell how many.

    Raises:
        KdpsError: an option or the index is at fault.
    """
    limit = _limit(args)
    # The end of a selection is part of it.
    selection = Selection(cameras=tuple(args.camera), end=limit.later(-1))
    done = expire(args.index, selection, _PATIENCE)
    removed = f"Removed {done.removed} persons seen before {limit}"
    sys.stdout.write(f"{removed}; {args.index} holds {done.left}.\n")
    if done.undated:
        sys.stdout.write(
            f"{done.undated} of them have no date and never expire; build with --start, or with a "
            "list of times.\n"
        )


def _limit(args: argparse.Namespace) -> Moment:
    if args.before is None:
        if not 0 <= args.keep_days < float("inf"):
            raise KdpsError(f"--keep-days: must be 0 or more, not {args.keep_days:g}")
        try:
            return moment_of_date(datetime.now(timezone.utc) - timedelta(days=args.keep_days))
        except OverflowError as error:
            raise KdpsError(f"--keep-days: {args.keep_days:g} is before all dates") from error
    limit = parse_moment(args.before, "--before")
    if limit.clock is not Clock.DATE:
        raise KdpsError(f"--before: {args.before!r} is no date, such as 2024-05-01")
    return limit
