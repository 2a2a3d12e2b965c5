# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps evaluate``: score a detections file on a test set, without the network."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

from kdps.cli.data_source import add_source_arguments, sources_of
from kdps.cli.parsers import add_command
from kdps.data.sources import SplitSource
from kdps.errors import KdpsError
from kdps.evaluation.context_matching import DEFAULT_K
from kdps.evaluation.detections_file import load_detections
from kdps.evaluation.evaluation import Evaluation, evaluate_detections
from kdps.evaluation.results_file import write_json
from kdps.evaluation.settings import CAMERAS, PROTOCOLS, SearchSettings, settings_from_meta
from kdps.utils.output import check_writable

_EXAMPLE = """examples:
  kdps evaluate prw_test --detections output/prw/inference/detections.npz
  kdps evaluate --format cuhk-sysu --root ~/data/CUHK-SYSU --detections mine.npz \\
      --gallery-size 50 100 500 1000 2000 4000 all --json results.json --report report
  kdps evaluate --format prw --root ~/data/PRW-v16.04.20 --detections mine.npz \\
      --cross-camera --cbgm --weighted

docs/evaluation.md describes the file, the protocols and what each setting does to the numbers."""


def add_parser(commands: argparse._SubParsersAction, summary: str) -> None:
    """Add the subcommand ``evaluate``."""
    parser = add_command(
        commands,
        "evaluate",
        summary,
        _EXAMPLE,
        "Score a file of detections and embeddings (.npz), written by kdps or by any other code, "
        "on a test set: mAP and top-1/5/10 of the search, recall and AP of the boxes. No image is "
        "read and no network is run, but for the pictures of --report.",
    )
    add_source_arguments(parser, splits=("test", "occlusion", "low-resolution"))
    parser.add_argument(
        "--detections", required=True, type=Path, metavar="FILE", help="the detections file"
    )
    parser.add_argument(
        "--gallery-size",
        nargs="+",
        type=_gallery,
        default=[],
        metavar="N",
        help="galleries to search, of CUHK-SYSU 50 to 4000 and 'all' (default: the set's own, 100)",
    )
    _add_settings(parser)
    parser.add_argument("--gt-boxes", action="store_true", help="search annotated boxes as well")
    parser.add_argument(
        "--detection-score-thresh",
        type=float,
        default=0.01,
        metavar="T",
        help="detections below do not count in recall and AP (default: 0.01)",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        default=10,
        metavar="K",
        help="hits per query to write into the JSON file (default: 10)",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write numbers and queries")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="write a page with curves, errors and pictures"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the bootstrap and of queries to show (default: 0)"
    )
    parser.set_defaults(run=run)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to search", "defaults are those of the detections file")
    group.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="compat",
        help="how repeated images and truths count: as in SeqNet (default), as in NAE and AlignPS, "
        "or each once, without the query's own image",
    )
    cameras = group.add_mutually_exclusive_group()
    cameras.add_argument(
        "--cross-camera",
        dest="cameras",
        action="store_const",
        const="cross",
        default=CAMERAS[0],
        help="search only images of other cameras than the query's",
    )
    cameras.add_argument(
        "--multi-view",
        dest="cameras",
        action="store_const",
        const="multi_view",
        help="search all images, but ignore the person in those of the query's own camera",
    )
    group.add_argument(
        "--score-thresh", type=float, metavar="T", help="leave detections below out of the search"
    )
    group.add_argument(
        "--weighted",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="multiply similarities by detection scores",
    )
    group.add_argument(
        "--best-iou",
        action="store_true",
        help="take the detection that overlaps the query's box most for the query",
    )
    group.add_argument("--query-expansion", type=int, default=0, metavar="K", help="mix K hits in")
    group.add_argument("--cbgm", action="store_true", help="context bipartite graph matching")
    group.add_argument("--cbgm-k1", type=int, metavar="K", help="default: 30 on PRW, else 10")
    group.add_argument("--cbgm-k2", type=int, metavar="K", help="default: 4 on PRW, else 3")
    group.add_argument("--rerank", action="store_true", help="k-reciprocal re-ranking")
    group.add_argument("--device", default="cpu", help="where to compare embeddings: cpu, cuda")


def run(args: argparse.Namespace) -> None:
    """Evaluate, print the table and write the files.

    Raises:
        KdpsError: a file, an option or the data set is at fault.
    """
    if args.top_k < 0 or args.seed < 0:
        raise KdpsError("--top-k and --seed: must be 0 or more")
    if not 0 <= args.detection_score_thresh <= 1:
        raise KdpsError("--detection-score-thresh: must be between 0 and 1")
    outputs = [path for path in (args.json, args.report and args.report / "index.html") if path]
    for path in outputs:
        check_writable(path)
    source, galleries = _source(args)
    detections = load_detections(args.detections)
    dataset = _dataset(source)
    settings = _settings(args, detections.meta, dataset)
    protocols = {gallery: source.protocol(gallery) for gallery in galleries}
    records = source.load()
    evaluation = evaluate_detections(
        detections,
        records,
        protocols,
        settings,
        queries_of=source.protocol(None) if args.split not in (None, "test") else None,
        dataset=dataset,
        gt_boxes=args.gt_boxes,
        detection_score_thresh=args.detection_score_thresh,
        top=args.top_k,
    )
    content = evaluation.as_dict(seed=args.seed)
    sys.stdout.write(_table(evaluation, content))
    if args.json:
        write_json(content, args.json)
        sys.stdout.write(f"Wrote {args.json}\n")


def _source(args: argparse.Namespace) -> tuple[SplitSource, list[int | str | None]]:
    """The test set, and the galleries to search in."""
    split = args.split
    if split in (None, "test"):
        galleries = list(dict.fromkeys(args.gallery_size)) or [None]
    elif args.gallery_size:
        raise KdpsError(f"--split {split} has one gallery; leave --gallery-size out")
    else:
        galleries = [split]
    if len(args.names) > 1:
        raise KdpsError("give one test set; a detections file is of one")
    # All splits are searches in the test set.
    chosen = {**vars(args), "split": "test" if args.root else None}
    (source,) = sources_of(argparse.Namespace(**chosen))
    if source.protocol is None:
        raise KdpsError(f"{source.name} is a training set, it has no queries")
    return source, galleries


def _dataset(source: SplitSource) -> str:
    """A name by which results can be told apart: the registered one, or layout and folder."""
    if source.resembles is None:
        return source.name
    return f"{source.layout.name}:{source.root.resolve().name}"


def _settings(args: argparse.Namespace, meta: dict[str, Any], dataset: str) -> SearchSettings:
    try:
        settings = settings_from_meta(meta, dataset)
    except KdpsError as error:
        raise KdpsError(f"{args.detections}: {error}") from None
    given = {"score_thresh": args.score_thresh, "weighted": args.weighted}
    settings.update({name: value for name, value in given.items() if value is not None})
    k1, k2 = DEFAULT_K["prw" if "prw" in dataset.lower() else "cuhk_sysu"]
    try:
        return SearchSettings(
            **settings,
            protocol=args.protocol,
            cameras=args.cameras,
            query_mode="best_iou" if args.best_iou else "given_box",
            query_expansion=args.query_expansion,
            cbgm=args.cbgm,
            cbgm_k1=k1 if args.cbgm_k1 is None else args.cbgm_k1,
            cbgm_k2=k2 if args.cbgm_k2 is None else args.cbgm_k2,
            rerank=args.rerank,
            device=args.device,
        )
    except KdpsError as error:
        name, _, fault = str(error).partition(":")
        raise KdpsError(f"--{name.replace('_', '-')}:{fault}") from None


def _gallery(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _table(evaluation: Evaluation, content: dict[str, Any]) -> str:
    rows = []
    for key, interval in content["intervals"].items():
        metrics, counts = content[key], content["counts"][key]
        span = (
            ""
            if interval is None
            else f"{interval['mAP_lower']:.1f} to {interval['mAP_upper']:.1f}"
        )
        top = [metrics[name] for name in ("top1", "top5", "top10")]
        rows.append([key, metrics["mAP"], span, *top, counts["queries"]])
    headers = ["", "mAP", "95 % interval", "top-1", "top-5", "top-10", "queries"]
    lines = [tabulate(rows, headers=headers, floatfmt=".2f", disable_numparse=[0, 2]), ""]
    detection = content["detection"]
    lines.append(f"Detection: recall {detection['recall']:.2f} %, AP {detection['AP']:.2f} %")
    lines.append("Settings: " + ", ".join(_text(k, v) for k, v in evaluation.settings.items()))
    for key, counts in content["counts"].items():
        for what, why in (
            ("left_out", "left out: the person is nowhere in their gallery"),
            ("not_embedded", "found nothing: no detection in their image to take for them"),
        ):
            if counts[what]:
                lines.append(f"{key}: {counts[what]} queries {why}")
    return "\n".join(lines) + "\n"


def _text(name: str, value: Any) -> str:
    shown = ", ".join(map(str, value)) if isinstance(value, list) else value
    return f"{name} {shown}"
