# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps gallery``: the group of subcommands on indexes of footage."""

from __future__ import annotations

import argparse

from kdps.cli import gallery_build, gallery_expire


def add_parser(commands: argparse._SubParsersAction, summary: str) -> None:
    """Add ``gallery`` with its own subcommands."""
    example = "example: kdps gallery build --help"
    parser = commands.add_parser("gallery", help=summary, description=summary, epilog=example)
    group = parser.add_subparsers(dest="gallery_command", required=True, metavar="SUBCOMMAND")
    gallery_build.add_parser(group)
    gallery_expire.add_parser(group)
