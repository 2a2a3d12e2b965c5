# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps data``: the group of subcommands on data sets."""

from __future__ import annotations

import argparse

from kdps.cli import data_check, data_show, data_synth


def add_parser(commands: argparse._SubParsersAction, summary: str) -> None:
    """Add ``data`` with its own subcommands."""
    example = "example: kdps data check cuhk_sysu_test"
    parser = commands.add_parser("data", help=summary, description=summary, epilog=example)
    group = parser.add_subparsers(dest="data_command", required=True, metavar="SUBCOMMAND")
    for module in (data_synth, data_check, data_show):
        module.add_parser(group)
