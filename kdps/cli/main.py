# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The console script ``kdps``: one module per subcommand, each with ``add_parser``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from kdps.cli.own_modules import own_modules
from kdps.engine.console import message_of
from kdps.errors import KdpsError
from kdps.utils.noise import quiet_known_noise

# Name of the subcommand -> one line for the overview. The module is kdps.cli.<name>; it is
# imported only when asked for, so that `kdps --help` does not load torch.
COMMANDS = {
    "data": "make, check and show data sets",
    "search": "find a person of one image in a folder of images or in an index",
    "gallery": "keep the persons of photographs and videos in an index",
    "serve": "search an index on a page in the browser",
    "report": "evaluate a model and write a table and an HTML page",
    "detect": "run a model over images and write a detections file",
    "evaluate": "score a file of detections, by any code, on a test set",
    "compare": "compare two evaluations query by query",
    "ablate": "train the runs of a plan, and write a table of what each is worth",
    "export": "write a model as a file that runs without kdps",
    "convert": "turn a published checkpoint into one of kdps",
    "env": "print versions, GPUs, active operators and the data sets found",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``kdps <command> ...`` and return its exit code (2 for bad input)."""
    with quiet_known_noise():
        return _main(list(sys.argv[1:] if argv is None else argv))


def build_parser(name: str | None) -> argparse.ArgumentParser:
    """The parser of the command line, complete for the subcommand ``name`` only."""
    parser = argparse.ArgumentParser(prog="kdps", description="Person search on Detectron2.")
    parser.set_defaults(modules=[])  # for commands without --import
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, summary in COMMANDS.items():
        if command == name:
            module = importlib.import_module(f"kdps.cli.{command}")
            module.add_parser(commands, summary)
        else:
            commands.add_parser(command, help=summary)
    return parser


def _main(argv: list[str]) -> int:
    try:
        args = build_parser(argv[0] if argv else None).parse_args(argv)
        with own_modules(args.modules):
            return args.run(args) or 0
    except KdpsError as error:
        # One from a data loader's worker brings the worker's trace along.
        sys.stderr.write(f"kdps: error: {message_of(error)}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("kdps: interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
