# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Options by which a subcommand is told which trained model it is about."""

from __future__ import annotations

import argparse
from functools import partial

from detectron2.config import CfgNode

from kdps.cli.own_modules import add_import_argument, add_own_config
from kdps.engine.setup import load_cfg


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--config-file``, ``--weights``, ``--import`` and the overrides ``KEY VALUE ...``."""
    parser.add_argument("--config-file", required=True, metavar="FILE", help="the model's config")
    parser.add_argument(
        "--weights", metavar="FILE", help="the trained model; default: MODEL.WEIGHTS of the config"
    )
    add_import_argument(parser)
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config overrides, such as MODEL.DEVICE cpu",
    )


def model_config(args: argparse.Namespace) -> CfgNode:
    """The config that the arguments describe, not checked yet.

    Raises:
        KdpsError: the file is missing or no YAML, a key is unknown, a value of the wrong type.
    """
    cfg = load_cfg(args.config_file, args.opts, partial(add_own_config, args.modules))
    if args.weights is not None:
        cfg.MODEL.WEIGHTS = args.weights
    return cfg
