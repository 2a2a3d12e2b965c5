# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps convert``: a published checkpoint as one of kdps."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from kdps.checkpoint.convert import METHODS, convert
from kdps.checkpoint.files import atomic_write
from kdps.checkpoint.formats import read_weights
from kdps.checkpoint.rules import Converted
from kdps.cli.parsers import add_command
from kdps.errors import KdpsError
from kdps.utils.output import check_writable

_EXAMPLE = """examples:
  kdps convert --from seqnet published.pth converted.pth
  train_net.py --eval-only --config-file configs/CUHK-SYSU/seqnet_R_50_C4.yaml \\
      MODEL.WEIGHTS converted.pth"""


def add_parser(commands: argparse._SubParsersAction, summary: str) -> None:
    """Add the subcommand ``convert``."""
    parser = add_command(
        commands,
        "convert",
        summary,
        _EXAMPLE,
        "Turn the checkpoint of a public implementation into one of kdps that computes the same, "
        "for use as MODEL.WEIGHTS. Every entry is accounted for; an unknown or missing one is an "
        "error. No code in the file is run.",
    )
    parser.add_argument(
        "--from",
        dest="method",
        required=True,
        choices=METHODS,
        help="whose checkpoint it is; oim-resnet are the ImageNet weights that OIM-Net starts from",
    )
    parser.add_argument("published", type=Path, metavar="IN.pth", help="the published checkpoint")
    parser.add_argument("output", type=Path, metavar="OUT.pth", help="file to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Convert, write and print a summary.

    Raises:
        KdpsError: the file cannot be read, is of another method, or cannot be written.
    """
    if args.output.resolve() == args.published.resolve():
        raise KdpsError(f"{args.output}: is the file to convert; name another one to write")
    checkpoint = read_weights(args.published)
    try:
        converted = convert(checkpoint, args.method)
    except KdpsError as error:
        raise KdpsError(f"{args.published}: {error}") from None
    check_writable(args.output)
    with atomic_write(args.output) as stream:
        torch.save({"model": converted.weights}, stream)
    sys.stdout.write(_summary(args, converted))


def _summary(args: argparse.Namespace, converted: Converted) -> str:
    weights = converted.weights
    lines = [
        f"{args.published}: {METHODS[args.method].title}",
        f"{len(weights)} entries written to {args.output}",
        *_dropped(converted.dropped),
    ]
    for name, table in weights.items():
        if name.endswith(".memory.table"):
            empty = int((table == 0).all(dim=1).sum())
            lines.append(f"{name}: {len(table)} identities, {empty} of them without a row there")
    return "\n".join(lines) + "\n"


def _dropped(dropped: Mapping[str, str]) -> list[str]:
    """A line for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in dropped.items():
        reasons.setdefault(reason, []).append(name)
    lines = []
    for reason, names in reasons.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"{len(names)} entries dropped ({reason}): {names[0]}{others}")
    return lines
