# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``--import``: modules of the user's own, with models and data sets that kdps does not bundle."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kdps.errors import KdpsError

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def add_import_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--import``, which fills ``args.modules``; the command line imports them."""
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="Python module that registers a model or data sets of your own, looked for in the "
        "current directory too; its add_config(cfg) adds its config keys; can be repeated",
    )


@contextmanager
def own_modules(names: Sequence[str]) -> Iterator[None]:
    """Import modules, and let them import others for as long as the context lasts.

    The installed script ``kdps`` does not look for modules in the current directory. As with
    ``python -m``, that directory comes first here. It stays on the path while the command runs,
    since a module may import its neighbours only when it is used, and leaves it afterwards.

    Args:
        names: dotted names; without any, nothing is changed.

    Raises:
        KdpsError: a module, or one that it needs, is not there.
    """
    folder = os.getcwd()
    added = bool(names) and not {"", folder}.intersection(sys.path)
    if added:
        sys.path.insert(0, folder)
    try:
        for name in names:
            _import(name)
        yield
    finally:
        if added:
            sys.path.remove(folder)


def add_own_config(names: Sequence[str], cfg: CfgNode) -> None:
    """Let each imported module that has ``add_config(cfg)`` add its keys."""
    for name in names:
        add_config = getattr(sys.modules[name], "add_config", None)
        if add_config is not None:
            add_config(cfg)


def _import(name: str) -> None:
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        raise KdpsError(f"--import: {name!r} is no module name, such as my_method or pkg.my_method")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The name in the error may be that of a module which this one needs.
        raise KdpsError(f"--import {name}: there is no module {error.name!r}") from error
