# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Options by which a subcommand is told which data set it is about."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from kdps.cli.own_modules import add_import_argument
from kdps.data.datasets.layouts import LAYOUTS, coco_layout, detect_layout
from kdps.data.sources import SplitSource, source_of_name, source_of_root
from kdps.errors import KdpsError


def add_source_arguments(
    parser: argparse.ArgumentParser, splits: Sequence[str] = ("train", "test")
) -> None:
    """Add NAME, ``--root``, ``--format``, ``--image-root``, ``--split`` and ``--import``.

    Args:
        parser: what they are added to.
        splits: what ``--split`` may be.
    """
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="registered sets, looked for in $DETECTRON2_DATASETS: cuhk_sysu_test, prw_train, ...",
    )
    parser.add_argument("--root", metavar="PATH", help="folder of a set, or a JSON file, instead")
    parser.add_argument(
        "--format", choices=tuple(LAYOUTS), help="layout of --root (default: told by its files)"
    )
    parser.add_argument(
        "--image-root", metavar="DIR", help="folder of the images of a JSON file (default: its own)"
    )
    parser.add_argument(
        "--split",
        choices=tuple(splits),
        help="one split of --root (default: both; of a JSON file, which is one split: test)"
        if "train" in splits
        else "queries to search for: all of the test set (default), or a subset of CUHK-SYSU's",
    )
    add_import_argument(parser)


def sources_of(
    args: argparse.Namespace, catch: Callable[[], AbstractContextManager[None]] = nullcontext
) -> list[SplitSource]:
    """The splits that the arguments name.

    Args:
        args: parsed arguments.
        catch: taken around the search for each name; what it catches leaves this name out.

    Raises:
        KdpsError: a name is unknown, or names and ``--root`` are both or neither given.
    """
    if bool(args.names) == bool(args.root):
        raise KdpsError("give the names of registered sets, or --root, but not both")
    if args.names:
        if args.format or args.split or args.image_root:
            raise KdpsError("--format, --split and --image-root go with --root")
        sources = []
        for name in args.names:
            with catch():
                sources.append(source_of_name(name))
        return sources
    layout = LAYOUTS[args.format] if args.format else detect_layout(args.root)
    if layout.name == "coco":
        layout = coco_layout(args.image_root)
        # One file is one split.
        splits = (args.split or "test",)
    else:
        splits = (args.split,) if args.split else ("train", "test")
    return [source_of_root(args.root, layout, split) for split in splits]
