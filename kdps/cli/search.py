# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps search``: find a person of one image in a folder of images or in an index."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kdps.cli.model_source import add_model_arguments, add_score_argument, inference_config
from kdps.cli.parsers import add_command
from kdps.cli.query import add_query_arguments, read_query
from kdps.cli.search_folder import search_folder
from kdps.cli.search_index import add_index_arguments, search_index
from kdps.errors import KdpsError
from kdps.evaluation.results_file import write_json
from kdps.report.sheets import SHEET_SUFFIXES, save_sheet
from kdps.search.results import SearchReport
from kdps.utils.output import check_writable

_EXAMPLE = """example:
  kdps search --config-file configs/PRW/seqnet_R_50_C4.yaml --weights output/model_best.pth \\
      --query frames/c1s1_001051.jpg --box 1020 420 96 240 --gallery frames --output sheet.png
  kdps search --config-file configs/PRW/seqnet_R_50_C4.yaml --weights output/model_best.pth \\
      --query door.mp4 --at 0:01:30 --index footage.db --camera yard --output sheet.png"""


def add_parser(commands: argparse._SubParsersAction, summary: str) -> None:
    """Add the subcommand ``search``."""
    parser = add_command(
        commands,
        "search",
        summary,
        _EXAMPLE,
        "Find a person of one image in a folder of images, or in an index that `kdps gallery "
        "build` has made, and draw the best hits on one sheet.",
    )
    add_model_arguments(parser)
    add_query_arguments(parser)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument(
        "--gallery",
        type=Path,
        metavar="DIR",
        help="folder to search in, with its subfolders; the query image itself is left out",
    )
    place.add_argument(
        "--index",
        metavar="WHERE",
        help="index to search in: a local file (.db) or the address of a Milvus server; the query "
        "image itself is left out",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="IMAGE", help="the sheet (.png or .jpg)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the hits as JSON")
    parser.add_argument(
        "--top-k", type=int, default=10, metavar="K", help="hits to show (default: 10)"
    )
    add_score_argument(parser)
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="registered set that holds these images: tells right hits from wrong ones",
    )
    add_index_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Search and write the sheet.

    Raises:
        KdpsError: a file, the box, an option, the config or the index is at fault.
    """
    cfg = inference_config(args)
    if args.top_k < 1:
        raise KdpsError(f"--top-k: must be at least 1, not {args.top_k}")
    if args.output.suffix.lower() not in SHEET_SUFFIXES:
        raise KdpsError(f"--output: {args.output} ends in none of {', '.join(SHEET_SUFFIXES)}")
    check_writable(args.output)
    if args.json:
        check_writable(args.json)
    scene = read_query(args)
    search = search_folder if args.index is None else search_index
    report = search(args, cfg, scene)
    save_sheet(report.sheet(), args.output)
    if args.json:
        write_json(report.as_dict(), args.json)
    sys.stdout.write(_summary(report, args.output))


def _summary(report: SearchReport, output: Path) -> str:
    lines = [report.table()] if report.hits else ["No person was found in the gallery."]
    lines.append("")
    where = "an index" if report.num_images is None else f"{report.num_images} images"
    lines.append(f"Searched {where} with {report.num_persons} persons.")
    if report.left_out:
        names = ", ".join(str(path) for path in report.left_out)
        lines.append(f"Left out, being the query image itself: {names}")
    if report.skipped:
        lines.append(f"Skipped {len(report.skipped)} unreadable images (named above).")
    lines.append(f"Wrote {output}")
    return "\n".join(lines) + "\n"
