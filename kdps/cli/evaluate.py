# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps evaluate``: score a detections file on a test set, without the network."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdps.checkpoint.files import atomic_write
from kdps.cli.data_source import add_source_arguments, sources_of
from kdps.cli.evaluation_text import analyses_text, table_text
from kdps.cli.parsers import add_command
from kdps.cli.search_settings import add_search_arguments, settings_of
from kdps.data.datasets.cuhk_sysu import usual_gallery_size
from kdps.data.protocol import SearchProtocol
from kdps.data.sources import SplitSource
from kdps.errors import KdpsError
from kdps.evaluation.annotated import annotated_as_detections
from kdps.evaluation.detections_file import load_detections
from kdps.evaluation.evaluation import Evaluation, evaluate_detections
from kdps.evaluation.pipeline import FULL_SET
from kdps.evaluation.results_file import write_json
from kdps.report.analyses import Analyses, analyse
from kdps.structures.detections import Detections, check_same_protocol
from kdps.utils.environment import file_hash, git_commit, machine, versions
from kdps.utils.output import check_writable

_EXAMPLE = """examples:
  kdps evaluate prw_test --detections output/prw/inference/detections.npz
  kdps evaluate --format cuhk-sysu --root ~/data/CUHK-SYSU --detections mine.npz \\
      --gallery-size 50 100 500 1000 2000 4000 all --json results.json --report report
  kdps evaluate --format prw --root ~/data/PRW-v16.04.20 --detections mine.npz \\
      --cross-camera --cbgm --weighted

docs/evaluation.md describes the file, the protocols and what each setting does to the numbers."""


# Lists of all queries are held in memory and written as text.
_MAX_TOP_K = 1000


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
    add_search_arguments(parser)
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
        "--details",
        action="store_true",
        help="say what each kind of error costs and how camera pairs differ, by further searches",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="write a page with curves, pictures and the details into DIR/index.html",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the bootstrap and of queries to show (default: 0)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Evaluate, print the table and write the files.

    Raises:
        KdpsError: a file, an option or the data set is at fault.
    """
    if args.seed < 0 or not 0 <= args.top_k <= _MAX_TOP_K:
        raise KdpsError(f"--top-k: must be 0 to {_MAX_TOP_K}, and --seed 0 or more")
    if not 0 <= args.detection_score_thresh <= 1:
        raise KdpsError("--detection-score-thresh: must be between 0 and 1")
    outputs = [path for path in (args.json, args.report and args.report / "index.html") if path]
    inputs = {Path(path).resolve() for path in (args.detections, args.root) if path}
    for path in outputs:
        if path.resolve() in inputs:
            raise KdpsError(f"{path}: is an input; choose another file to write")
        check_writable(path)
    source, galleries = _source(args)
    detections = load_detections(args.detections)
    dataset = _dataset(source)
    settings = settings_of(args, detections.meta, source.layout.name if source.layout else dataset)
    protocols = {gallery: source.protocol(gallery) for gallery in galleries}
    # Detections are of all queries, also where a gallery is for a few of them.
    subset = any(isinstance(gallery, str) and gallery != FULL_SET for gallery in galleries)
    queries_of = source.protocol(None) if subset else protocols[galleries[0]]
    records = source.load()
    _require_fit(args, detections, queries_of, records)
    evaluation = evaluate_detections(
        detections,
        records,
        protocols,
        settings,
        queries_of=queries_of,
        dataset=dataset,
        gt_boxes=args.gt_boxes,
        detection_score_thresh=args.detection_score_thresh,
        top=args.top_k,
    )
    content = evaluation.as_dict(seed=args.seed)
    sys.stdout.write(table_text(evaluation, content))
    analyses = analyse(evaluation, records) if args.details or args.report else None
    if analyses is not None:
        content |= analyses.as_dict()
        sys.stdout.write(analyses_text(analyses))
    if args.json:
        write_json(content, args.json)
    if analyses is not None and args.report:
        _write_report(args, source, evaluation, content, records, analyses)
    for path in outputs:
        sys.stdout.write(f"Wrote {path}\n")


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
    sizes = source.gallery_sizes()
    if galleries == [None] and sizes:
        # Named, so that the result says which one it is of.
        galleries = [usual_gallery_size(sizes)]
    return source, galleries


def _dataset(source: SplitSource) -> str:
    """A name by which results can be told apart: the registered one, or layout and folder."""
    if source.resembles is None:
        return source.name
    return f"{source.layout.name}:{source.root.resolve().name}"


def _require_fit(
    args: argparse.Namespace,
    detections: Detections,
    protocol: SearchProtocol,
    records: Sequence[Mapping[str, Any]],
) -> None:
    """See that the file is of the set, while it can still be named."""
    try:
        check_same_protocol(detections, protocol)
        if args.gt_boxes:
            annotated_as_detections(detections, records)
    except KdpsError as error:
        raise KdpsError(f"{args.detections}: {error}") from None


def _write_report(
    args: argparse.Namespace,
    source: SplitSource,
    evaluation: Evaluation,
    content: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    analyses: Analyses,
) -> None:
    # Here, since a small evaluation takes no longer than the drawing library takes to load.
    from kdps.report.evaluation_content import gather_evaluation
    from kdps.report.evaluation_page import render_evaluation

    files = [args.detections]
    if source.root is not None and source.root.is_file():
        files.append(source.root)
    page = gather_evaluation(
        evaluation,
        content,
        records,
        analyses,
        seed=args.seed,
        origin={
            "command": shlex.join(["kdps", *sys.argv[1:]]),
            "data set": str(source.root or source.name),
            **{f"SHA-256 of {file}": str(file_hash(file)) for file in files},
            "commit": git_commit() or "not a git checkout",
            "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
            "machine": machine(),
        },
    )
    with atomic_write(args.report / "index.html") as file:
        file.write(render_evaluation(page).encode())


def _gallery(text: str) -> int | str:
    return int(text) if text.isdigit() else text
