# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps env``: what is installed, what it runs on, and which data sets are there."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from kdps.cli.parsers import add_command
from kdps.errors import KdpsError

_EXAMPLE = """examples:
  kdps env
  DETECTRON2_DATASETS=/data kdps env --all > env.txt"""


def add_parser(commands: argparse._SubParsersAction, summary: str) -> None:
    """Add the subcommand ``env``."""
    parser = add_command(
        commands,
        "env",
        summary,
        _EXAMPLE,
        "Print versions, processor and GPUs, the operators that are active on each, and the data "
        "sets that are found under $DETECTRON2_DATASETS. Good to have in a report of a fault.",
    )
    parser.add_argument(
        "--all", action="store_true", help="also print Detectron2's report on its environment"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Collect and print."""
    from kdps.layers.operators import active_operators, compiled_operators
    from kdps.utils.environment import git_commit, gpus, machine, versions

    cards = gpus()
    sections = [
        ("Versions", [*versions().items(), ("commit", git_commit() or "not from a git checkout")]),
        ("Machine", [("runs on", machine()), *_gpu_rows(cards)]),
        ("Compiled operators", compiled_operators().items()),
        ("Active on the CPU", active_operators("cpu").items()),
    ]
    if cards:
        sections.append(("Active on the GPU", active_operators("cuda").items()))
    sections.append((f"Data sets ({_place()})", _data_sets()))
    for title, rows in sections:
        sys.stdout.write(f"{title}\n{_table(rows)}\n\n")
    if args.all:
        from detectron2.utils.collect_env import collect_env_info

        sys.stdout.write(f"Detectron2's report\n{collect_env_info()}\n")


def _gpu_rows(cards: Sequence[tuple[str, float, str]]) -> list[tuple[str, str]]:
    if not cards:
        return [("GPU", "none that torch can use")]
    return [
        (f"GPU {i}", f"{name}, {memory:.0f} GiB, compute capability {capability}")
        for i, (name, memory, capability) in enumerate(cards)
    ]


def _place() -> str:
    from kdps.data.datasets.builtin import ENVIRONMENT_VARIABLE

    value = os.environ.get(ENVIRONMENT_VARIABLE)
    return f"{ENVIRONMENT_VARIABLE} is {value}" if value else f"{ENVIRONMENT_VARIABLE} is not set"


def _data_sets() -> list[tuple[str, str]]:
    """Registered sets with their folders; ``kdps data check`` looks into them."""
    from detectron2.data import MetadataCatalog

    import kdps.data  # noqa: F401  (registers the sets)
    from kdps.data.catalog import person_search_sets

    rows = []
    for name in person_search_sets():
        find_root = MetadataCatalog.get(name).get("find_root", None)
        if find_root is None:
            continue
        try:
            rows.append((name, str(find_root())))
        except KdpsError:
            rows.append((name, "not found"))
    return rows


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return tabulate(
        [(f"  {name}", value) for name, value in rows],
        tablefmt="plain",
        disable_numparse=True,
        preserve_whitespace=True,
    )
