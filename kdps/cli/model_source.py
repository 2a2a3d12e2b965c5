# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Options by which a subcommand is told of which trained model it is, and how sure that must be."""

from __future__ import annotations

import argparse
from functools import partial

from detectron2.config import CfgNode

from kdps.cli.own_modules import add_import_argument, add_own_config
from kdps.config.detector import detector_node
from kdps.config.validation import check_inference
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


def add_score_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--score-thresh``."""
    parser.add_argument(
        "--score-thresh",
        type=float,
        metavar="T",
        help="leave out persons detected with a lower score; default: "
        "TEST.PERSON_SEARCH.SCORE_THRESH of the config",
    )


def inference_config(args: argparse.Namespace) -> CfgNode:
    """As ``model_config``, with ``--score-thresh``, checked for running the model.

    Raises:
        KdpsError: as ``model_config``, or a value is out of range.
    """
    cfg = model_config(args)
    if args.score_thresh is not None:
        cfg.TEST.PERSON_SEARCH.SCORE_THRESH = args.score_thresh
        # The detector must not have dropped before what is asked for.
        node = detector_node(cfg)
        node.SCORE_THRESH_TEST = min(node.SCORE_THRESH_TEST, args.score_thresh)
    check_inference(cfg)
    return cfg
