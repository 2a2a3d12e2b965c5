# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps detect``: run a model over images and write the detections file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from kdps.checkpoint.fingerprint import weights_hash
from kdps.cli.model_source import add_model_arguments, model_config
from kdps.cli.parsers import add_command
from kdps.config.validation import check_inference
from kdps.data.catalog import get_protocol
from kdps.data.given_boxes import ANNOTATED
from kdps.data.protocol import SearchProtocol
from kdps.data.sources import source_of_name
from kdps.engine.detect import detect_records
from kdps.engine.predictor import load_for_inference
from kdps.errors import KdpsError
from kdps.evaluation.assemble import assemble_detections, assemble_for_protocol
from kdps.evaluation.detections_file import save_detections
from kdps.evaluation.person_search_evaluation import detections_meta
from kdps.evaluation.prediction_parts import PredictionParts
from kdps.export.onnx_model import SUFFIX, OnnxModel, check_precision
from kdps.search.images import find_images
from kdps.utils.environment import file_hash
from kdps.utils.output import check_writable

_EXAMPLE = """examples:
  kdps detect --config-file configs/PRW/seqnet_R_50_C4.yaml --weights model_best.pth \\
      --dataset prw_test --output detections.npz
  kdps detect --config-file configs/PRW/seqnet_R_50_C4.yaml --weights model_best.pth \\
      --images footage/frames --batch-size 8 --output frames.npz
  kdps detect --config-file projects/DKD/configs/PRW/crop_reid_R_50.yaml --weights teacher.pth \\
      --dataset prw_test --boxes detections.npz --output two_step.npz

An interrupted run goes on when it is started again: what it has found waits in OUTPUT.parts."""


def add_parser(commands: argparse._SubParsersAction, summary: str) -> None:
    """Add the subcommand ``detect``."""
    parser = add_command(
        commands,
        "detect",
        summary,
        _EXAMPLE,
        "Detect and embed the people of a test set, with its queries, or of a folder of images, "
        "and write them into a detections file (.npz), which `kdps evaluate` scores.",
    )
    add_model_arguments(parser)
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument("--dataset", metavar="NAME", help="registered test set")
    images.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of images, with its subfolders"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help="the detections file (.npz)"
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images at once; default: TEST.IMS_PER_BATCH"
    )
    parser.add_argument(
        "--boxes",
        metavar="FILE",
        help="detections file whose boxes are embedded in place of the model's own detections "
        "(TEST.PERSON_SEARCH.BOXES)",
    )
    parser.add_argument("--gt-boxes", action="store_true", help="embed annotated boxes as well")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Detect and write the file.

    Raises:
        KdpsError: a file, an option, the config or the data set is at fault.
    """
    cfg = _load_config(args)
    if args.output.suffix != ".npz":
        raise KdpsError(f"--output: {args.output} does not end in .npz")
    check_writable(args.output)
    protocol: SearchProtocol | None = None
    if args.dataset:
        source = source_of_name(args.dataset)
        if source.protocol is None:
            raise KdpsError(f"--dataset: {args.dataset} is a training set, it has no queries")
        protocol, records = get_protocol(args.dataset), DatasetCatalog.get(args.dataset)
    else:
        records = _records_of(args.images)
    model, weights = _load_model(cfg)
    images = args.dataset or str(args.images.resolve())
    source = args.dataset or str(args.images)
    meta = {**detections_meta(cfg, source), "weights_sha256": weights}
    parts = PredictionParts(
        args.output.with_name(args.output.name + ".parts"),
        {
            "weights": weights,
            # Files of the same weights, and the model itself, differ in rounding.
            "exported": file_hash(cfg.MODEL.WEIGHTS) if _is_exported(cfg) else None,
            "config": _what_decides(cfg),
            "images": images,
        },
        {} if args.dataset else _states_of(records),
    )
    predictions = detect_records(cfg, model, records, parts)
    if protocol is None:
        names = [record["image_id"] for record in records]
        detections = assemble_detections(predictions, names, 0, meta)
    else:
        detections = assemble_for_protocol(predictions, protocol, meta)
    save_detections(detections, args.output)
    parts.remove()
    sys.stdout.write(
        f"Wrote {args.output}: {len(detections.names)} images, {len(detections.det)} detections, "
        f"{len(detections.query_emb)} queries, embeddings of {detections.emb.shape[1]} numbers\n"
    )


def _is_exported(cfg: CfgNode) -> bool:
    return cfg.MODEL.WEIGHTS.endswith(SUFFIX)


def _load_model(cfg: CfgNode) -> tuple[Callable[..., Any], str]:
    """The model and the hash of its weights."""
    if _is_exported(cfg):
        exported = OnnxModel(Path(cfg.MODEL.WEIGHTS), cfg)
        return exported, exported.weights
    model = load_for_inference(cfg)
    return model, weights_hash(model)


def _load_config(args: argparse.Namespace) -> CfgNode:
    cfg = model_config(args)
    if not cfg.MODEL.WEIGHTS:
        raise KdpsError("--weights: name the trained model")
    if args.batch_size is not None:
        if args.batch_size < 1:
            raise KdpsError(f"--batch-size: must be at least 1, not {args.batch_size}")
        cfg.TEST.IMS_PER_BATCH = args.batch_size
    if args.boxes is not None:
        cfg.TEST.PERSON_SEARCH.BOXES = args.boxes
    if _is_exported(cfg):
        check_precision(cfg)
        if cfg.TEST.PERSON_SEARCH.BOXES or args.gt_boxes:
            raise KdpsError("--boxes, --gt-boxes: an exported model embeds no boxes that are given")
    if cfg.TEST.PERSON_SEARCH.BOXES == ANNOTATED and not args.dataset:
        raise KdpsError("--boxes: a folder of images has no annotated boxes; name a file")
    node = cfg.TEST.PERSON_SEARCH
    if args.gt_boxes and not args.dataset:
        raise KdpsError("--gt-boxes: a folder of images has no annotated boxes")
    # A model's config may ask for them in general.
    node.GT_BOXES = args.gt_boxes or ("TEST.PERSON_SEARCH.GT_BOXES" in args.opts and node.GT_BOXES)
    check_inference(cfg)
    return cfg


def _records_of(folder: Path) -> list[dict[str, Any]]:
    return [
        {
            "file_name": str(path),
            "image_id": path.relative_to(folder).as_posix(),
            "cam_id": 0,
            "annotations": [],
        }
        for path in find_images(folder)
    ]


def _states_of(records: list[dict[str, Any]]) -> dict[str, str]:
    """What each file is like now; one of the same name may be another image later."""
    states = {record["image_id"]: Path(record["file_name"]).stat() for record in records}
    return {image: f"{own.st_size} {own.st_mtime_ns}" for image, own in states.items()}


def _what_decides(cfg: CfgNode) -> str:
    """The part of a config that what is found in an image depends on."""
    decisive = CfgNode({"MODEL": cfg.MODEL, "INPUT": cfg.INPUT, "TEST": cfg.TEST}).clone()
    decisive.MODEL.WEIGHTS = ""
    decisive.TEST.IMS_PER_BATCH = 1
    boxes = cfg.TEST.PERSON_SEARCH.BOXES
    # The same file may hold other boxes now.
    return decisive.dump() + (file_hash(Path(boxes)) if Path(boxes).is_file() else "")
