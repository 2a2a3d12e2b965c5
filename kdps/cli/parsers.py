# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How the parsers of all subcommands begin."""

from __future__ import annotations

import argparse
import textwrap


def add_command(
    commands: argparse._SubParsersAction, name: str, summary: str, examples: str, description: str
) -> argparse.ArgumentParser:
    """Add a subcommand whose help ends with examples, printed as they are.

    Args:
        commands: what it is added to.
        name: what the user types.
        summary: its line in the overview.
        examples: command lines, each with its own indent.
        description: what it does; the overview of its own help.
    """
    return commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, 79),
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
