# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps export``: a model as a file that runs without kdps."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from kdps.cli.model_source import add_model_arguments, model_config
from kdps.cli.parsers import add_command
from kdps.config.validation import check_inference
from kdps.data.image_input import ImageInput
from kdps.engine.predictor import load_person_finder
from kdps.errors import KdpsError
from kdps.export.onnx_file import check_onnx, export_onnx
from kdps.export.onnx_model import SUFFIX, check_precision
from kdps.search.images import read_bgr
from kdps.utils.output import check_writable
from kdps.utils.requirements import require_onnx, require_onnxruntime

logger = logging.getLogger(__name__)

_EXAMPLE = """example:
  kdps export --config-file configs/PRW/seqnet_R_50_C4.yaml --weights model_best.pth \\
      --format onnx --output seqnet.onnx --image street.jpg

docs/inference.md says what goes in and what comes out."""


def add_parser(commands: argparse._SubParsersAction, summary: str) -> None:
    """Add the subcommand ``export``."""
    parser = add_command(
        commands,
        "export",
        summary,
        _EXAMPLE,
        "Write a model as a file that runs without kdps: an image in; boxes, scores and "
        "embeddings out. The file is compared with the model.",
    )
    add_model_arguments(parser)
    parser.add_argument("--format", choices=("onnx",), default="onnx", help="default: onnx")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help=f"the file ({SUFFIX})"
    )
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="image with people, with which the file is compared beside noise; can be repeated",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Export and compare.

    Raises:
        KdpsError: an option or the config is at fault, or the method cannot be exported.
    """
    cfg = model_config(args)
    check_inference(cfg)
    if args.output.suffix != SUFFIX:
        raise KdpsError(f"--output: {args.output} does not end in {SUFFIX}")
    check_precision(cfg)
    check_writable(args.output)
    require_onnx()
    require_onnxruntime()
    to_input = ImageInput(cfg)
    images = [to_input(read_bgr(path))[0]["image"] for path in args.image]
    model = load_person_finder(cfg)
    # What turns out to be wrong is not left behind under the name of a good one.
    unchecked = args.output.with_name(f"unchecked_{args.output.name}")
    try:
        export_onnx(model, cfg, unchecked)
        compared = check_onnx(model, unchecked, images)
        unchecked.replace(args.output)
    finally:
        unchecked.unlink(missing_ok=True)
    if not compared:
        logger.warning("nobody was detected in what was compared; name an --image with people")
    sys.stdout.write(f"Wrote {args.output}: {compared} detections are those of the model\n")
