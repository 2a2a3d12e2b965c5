# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps data check``: is a data set whole and fit for use?"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from kdps.cli.data_source import add_source_arguments, sources_of
from kdps.cli.parsers import add_command

if TYPE_CHECKING:
    from kdps.data.check import Report

_EXAMPLE = """examples:
  kdps data check cuhk_sysu_train cuhk_sysu_test
  kdps data check --root ~/data/PRW-v16.04.20 --decode
  kdps data check --root labels.json --image-root frames --split train

Errors make the exit code 1. Warnings and notes do not."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``check`` to the group ``kdps data``."""
    summary = "count, and look for what is missing, damaged or contradictory"
    parser = add_command(commands, "check", summary, _EXAMPLE, summary)
    add_source_arguments(parser)
    parser.add_argument(
        "--decode", action="store_true", help="read all pixels of the images, not only headers"
    )
    parser.add_argument(
        "--gallery-sizes",
        type=int,
        nargs="+",
        metavar="N",
        help="galleries to check (default: all)",
    )
    parser.add_argument(
        "--max-lines",
        type=int,
        default=50,
        metavar="N",
        help="findings printed per set (default: 50)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the sets and print what was found; 1 if there are errors."""
    from kdps.data.check import Level, Report, check_layout, check_split

    report = Report()
    sources = []
    with report.catch():
        sources = sources_of(args, report.catch)
    printed = _print_findings(report, 0, args.max_lines)
    for source in sources:
        counts = check_split(source, report, gallery_sizes=args.gallery_sizes, decode=args.decode)
        numbers = ", ".join(f"{count} {what}" for what, count in counts.items())
        sys.stdout.write(f"{source.name}: {numbers or 'could not be read'}\n")
        printed = _print_findings(report, printed, args.max_lines)
    for root, layout in {s.root: s.layout for s in sources if s.layout is not None}.items():
        check_layout(root, layout, report)
    _print_findings(report, printed, args.max_lines)
    totals = ", ".join(f"{level.value}s: {report.count(level)}" for level in Level)
    sys.stdout.write(totals + "\n")
    return 1 if report.count(Level.ERROR) else 0


def _print_findings(report: Report, start: int, max_lines: int) -> int:
    """Print the findings from ``start`` on, at most ``max_lines``; return their number so far."""
    end = len(report.findings)
    for finding in report.findings[start : start + max_lines]:
        sys.stdout.write(f"  {finding}\n")
    more = end - start - max_lines
    if more > 0:
        sys.stdout.write(f"  ... and {more} more lines; --max-lines shows them\n")
    return end
