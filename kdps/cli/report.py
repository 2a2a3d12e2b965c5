# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps report``: evaluate a model beside its yardsticks and write a page about it."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger

from kdps.checkpoint.formats import read_weights
from kdps.cli.model_source import add_model_arguments, model_config
from kdps.cli.parsers import add_command
from kdps.config.detector import detector_node
from kdps.config.validation import check_cfg
from kdps.errors import KdpsError
from kdps.evaluation.detections_file import load_detections
from kdps.evaluation.results_file import write_json
from kdps.report.content import ReportContent, ReportSettings, gather_content
from kdps.report.history import TrainingHistory, read_history
from kdps.report.page import render_page
from kdps.report.rows import format_difference, format_rows
from kdps.structures.detections import Detections
from kdps.train_net import evaluate
from kdps.utils.environment import file_hash, git_commit, machine, versions
from kdps.utils.output import check_writable

_EXAMPLE = """example:
  kdps report --config-file configs/PRW/seqnet_R_50_C4.yaml \\
      --weights output/prw_seqnet/model_best.pth --output output/prw_seqnet/report.html"""


def add_parser(commands: argparse._SubParsersAction, summary: str) -> None:
    """Add the subcommand ``report``."""
    parser = add_command(
        commands,
        "report",
        summary,
        _EXAMPLE,
        "Evaluate a model on the first set of DATASETS.TEST, beside random "
        "embeddings, a colour histogram and annotated boxes. Writes one HTML page that needs no "
        "other file, the numbers as JSON beside it, and the detections into a folder of its name.",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--output", required=True, type=Path, metavar="HTML", help="the page to write"
    )
    parser.add_argument(
        "--detections",
        type=Path,
        metavar="FILE",
        help="take this detections.npz of an earlier evaluation; the model is not run",
    )
    parser.add_argument(
        "--queries", type=int, default=9, metavar="N", help="queries to show (default: 9)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of random embeddings, bootstrap and randomly shown queries (default: 0)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Evaluate, compare and write the page.

    Raises:
        KdpsError: a file, an option or the config is at fault.
    """
    if args.output.suffix.lower() not in (".html", ".htm"):
        raise KdpsError(f"--output: {args.output} does not end in .html")
    if args.queries < 0 or args.seed < 0:
        raise KdpsError("--queries and --seed: must be 0 or more")
    cfg = _load_config(args)
    check_writable(args.output)
    data_file = args.output.with_suffix(".json")
    check_writable(data_file)
    for name in ("detectron2", "fvcore", "kdps"):
        setup_logger(name=name)

    dataset_name = cfg.DATASETS.TEST[0]
    # Before the evaluation, which takes OUTPUT_DIR for its own files.
    history = _find_history(cfg, dataset_name)
    detections = _get_detections(args, cfg)
    node = cfg.TEST.PERSON_SEARCH
    sizes = node.GALLERY_SIZES
    content = gather_content(
        detections,
        dataset_name,
        ReportSettings(
            score_thresh=node.SCORE_THRESH,
            weighted=node.WEIGHTED,
            detection_score_thresh=node.DETECTION_SCORE_THRESH,
            num_queries=args.queries,
            seed=args.seed,
        ),
        gallery_size=sizes[0] if sizes else None,
        history=history,
        notes=_notes(args, cfg),
        config=cfg.dump(),
        training_config=_training_config(cfg),
    )
    page = render_page(content)
    args.output.write_text(page, encoding="utf-8")
    write_json(content.as_dict(), data_file)
    sys.stdout.write(_console_text(content, args.output, data_file))


def _load_config(args: argparse.Namespace) -> CfgNode:
    cfg = model_config(args)
    if not cfg.MODEL.WEIGHTS and args.detections is None:
        raise KdpsError("--weights: name the trained model, or --detections of an evaluation")
    cfg.DATASETS.TEST = cfg.DATASETS.TEST[:1]
    cfg.TEST.PERSON_SEARCH.GT_BOXES = True
    check_cfg(cfg, eval_only=True)
    return cfg


def _get_detections(args: argparse.Namespace, cfg: CfgNode) -> Detections:
    if args.detections is not None:
        return load_detections(args.detections)
    cfg = cfg.clone()
    # Beside the page, not over those of the training.
    cfg.OUTPUT_DIR = str(args.output.with_suffix(""))
    evaluate(cfg)
    return load_detections(args.output.with_suffix("") / "inference" / "detections.npz")


def _find_history(cfg: CfgNode, dataset_name: str) -> TrainingHistory | None:
    """The curves of the training that made the weights: those beside them, or in OUTPUT_DIR."""
    return read_history(_training_folder(cfg) / "metrics.json", dataset_name)


def _training_folder(cfg: CfgNode) -> Path:
    weights = Path(cfg.MODEL.WEIGHTS)
    return weights.parent if weights.is_file() else Path(cfg.OUTPUT_DIR)


def _training_config(cfg: CfgNode) -> str:
    path = _training_folder(cfg) / "config.yaml"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _notes(args: argparse.Namespace, cfg: CfgNode) -> dict[str, str]:
    sources = {"weights": cfg.MODEL.WEIGHTS, "detections": args.detections}
    files = {}
    for kind, source in sources.items():
        if source:
            files[kind] = str(source)
            files[f"SHA-256 of the {kind}"] = file_hash(Path(source)) or "unknown"
    return {
        "threshold of the detector": f"{detector_node(cfg).SCORE_THRESH_TEST:g}",
        "command": shlex.join(["kdps", *sys.argv[1:]]),
        "config": args.config_file,
        **files,
        "seed of the training": _training_seed(cfg),
        "commit of this report": git_commit() or "not a git checkout",
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "machine": machine(),
    }


def _training_seed(cfg: CfgNode) -> str:
    """From the config or, where that leaves it open, from the checkpoint of the training."""
    seed, weights = cfg.SEED, Path(cfg.MODEL.WEIGHTS)
    if seed < 0 and weights.is_file():
        seed = read_weights(weights, lazily=True).get("trainer", {}).get("seed", -1)
    return str(seed) if seed >= 0 else "unknown"


def _console_text(content: ReportContent, page: Path, data_file: Path) -> str:
    facts = ", ".join(f"{value} {name}" for name, value in content.facts.items())
    detection = content.detection.metrics()
    return (
        f"\n{content.dataset}: {facts}\n\n{format_rows(content.rows)}\n\n"
        f"Trained model: {format_difference(content.difference)}\n"
        f"Detection: recall {detection['recall']:.1f} %, AP {detection['AP']:.1f} %\n"
        f"Wrote {page} and {data_file}\n"
    )
