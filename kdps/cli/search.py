# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps search``: find the person in a box of one image in a folder of images."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from kdps.cli.model_source import add_model_arguments, model_config
from kdps.cli.parsers import add_command
from kdps.config.validation import check_inference
from kdps.engine.predictor import PersonSearchPredictor
from kdps.errors import KdpsError
from kdps.evaluation.results_file import write_json
from kdps.report.sheets import SHEET_SUFFIXES, save_sheet
from kdps.search.identities import KnownIdentities
from kdps.search.images import find_images, read_bgr, same_image
from kdps.search.results import SearchReport
from kdps.search.searcher import PersonSearcher
from kdps.utils.output import check_writable
from kdps.utils.visualizer import Verdict

logger = logging.getLogger(__name__)

_EXAMPLE = """example:
  kdps search --config-file configs/PRW/seqnet_R_50_C4.yaml --weights output/model_best.pth \\
      --query frames/c1s1_001051.jpg --box 1020 420 96 240 --gallery frames --output sheet.png"""


def add_parser(commands: argparse._SubParsersAction, summary: str) -> None:
    """Add the subcommand ``search``."""
    parser = add_command(
        commands,
        "search",
        summary,
        _EXAMPLE,
        "Find the person in a box of one image in a folder of images, and draw the "
        "best hits on one sheet.",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--query", required=True, type=Path, metavar="IMAGE", help="image with the person"
    )
    parser.add_argument(
        "--box",
        required=True,
        nargs=4,
        type=float,
        metavar=("X", "Y", "W", "H"),
        help="the person's box in pixels: left, top, width, height",
    )
    parser.add_argument(
        "--gallery",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder to search in, with its subfolders; the query image itself is left out",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="IMAGE", help="the sheet (.png or .jpg)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the hits as JSON")
    parser.add_argument(
        "--top-k", type=int, default=10, metavar="K", help="hits to show (default: 10)"
    )
    parser.add_argument(
        "--score-thresh",
        type=float,
        metavar="T",
        help="leave out persons detected with a lower score; default: "
        "TEST.PERSON_SEARCH.SCORE_THRESH of the config",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="registered set that holds these images: tells right hits from wrong ones",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Search and write the sheet.

    Raises:
        KdpsError: a file, the box, an option or the config is at fault.
    """
    cfg = _load_config(args)
    if args.top_k < 1:
        raise KdpsError(f"--top-k: must be at least 1, not {args.top_k}")
    if args.output.suffix.lower() not in SHEET_SUFFIXES:
        raise KdpsError(f"--output: {args.output} ends in none of {', '.join(SHEET_SUFFIXES)}")
    check_writable(args.output)
    if args.json:
        check_writable(args.json)
    query = read_bgr(args.query)
    box = _box_in_image(args.box, query.shape[1], query.shape[0], args.query)
    images = find_images(args.gallery)
    identities = KnownIdentities.of_dataset(args.dataset) if args.dataset else None

    searcher = PersonSearcher(
        PersonSearchPredictor(cfg),
        score_thresh=cfg.TEST.PERSON_SEARCH.SCORE_THRESH,
        weighted=cfg.TEST.PERSON_SEARCH.WEIGHTED,
    )
    embedding = searcher.embed(query, box)
    left_out = [path for path in images if same_image(path, args.query)]
    skipped = _fill_gallery(searcher, [path for path in images if path not in left_out])
    hits = searcher.gallery.search(embedding, args.top_k, weighted=searcher.weighted)
    report = SearchReport(
        query=args.query,
        box=box,
        gallery=args.gallery,
        hits=hits,
        verdicts=_verdicts(identities, args.query, box, [(h.source, h.box) for h in hits]),
        num_images=len(searcher.gallery.sources),
        num_persons=len(searcher.gallery),
        weighted=searcher.weighted,
        left_out=left_out,
        skipped=skipped,
    )
    save_sheet(report.sheet(), args.output)
    if args.json:
        write_json(report.as_dict(), args.json)
    sys.stdout.write(_summary(report, args.output))


def _load_config(args: argparse.Namespace) -> CfgNode:
    cfg = model_config(args)
    if args.score_thresh is not None:
        cfg.TEST.PERSON_SEARCH.SCORE_THRESH = args.score_thresh
        # The detector must not have dropped before what is asked for.
        heads = cfg.MODEL.ROI_HEADS
        heads.SCORE_THRESH_TEST = min(heads.SCORE_THRESH_TEST, args.score_thresh)
    check_inference(cfg)
    return cfg


def _box_in_image(
    xywh: Sequence[float], width: int, height: int, path: Path
) -> tuple[float, float, float, float]:
    """XYWH to XYXY, cut at the image's border."""
    x, y, w, h = xywh
    text = " ".join(f"{value:g}" for value in xywh)
    if not all(math.isfinite(value) for value in xywh) or w <= 0 or h <= 0:
        raise KdpsError(f"--box: {text} is no box X Y W H with a width and height above 0")
    box = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    if box[2] - box[0] < 1 or box[3] - box[1] < 1:
        raise KdpsError(
            f"--box: {text} (X Y W H) has less than a pixel in the {width}x{height} image {path}"
        )
    if box != (x, y, x + w, y + h):
        logger.warning("--box: %s leaves the %dx%d image and was cut", text, width, height)
    return box


def _fill_gallery(searcher: PersonSearcher, images: Sequence[Path]) -> dict[Path, str]:
    """Search all readable images; the others are returned with the reason."""
    skipped = {}
    with logging_redirect_tqdm():
        for path in tqdm(images, desc="searching", unit="image", dynamic_ncols=True):
            try:
                image = read_bgr(path)
            except KdpsError as error:
                logger.warning("skipped: %s", error)
                skipped[path] = str(error)
                continue
            searcher.add(str(path), image)
    if not searcher.gallery.sources:
        raise KdpsError(
            "--gallery: none of its images could be searched"
            if skipped
            else "--gallery: it holds no image but the query's own"
        )
    return skipped


def _verdicts(
    identities: KnownIdentities | None,
    query: Path,
    box: Sequence[float],
    found: Sequence[tuple[str, Sequence[float]]],
) -> list[Verdict]:
    if identities is None:
        return [Verdict.HIT] * len(found)
    person_id = identities.person_in(query, box)
    if person_id is None or person_id < 0:
        logger.warning("--dataset: it knows no identity in the query box; hits are not judged")
        return [Verdict.HIT] * len(found)
    return [identities.verdict(image, other, person_id) for image, other in found]


def _summary(report: SearchReport, output: Path) -> str:
    lines = [report.table()] if report.hits else ["No person was found in the gallery."]
    lines.append("")
    lines.append(f"Searched {report.num_images} images with {report.num_persons} persons.")
    if report.left_out:
        names = ", ".join(str(path) for path in report.left_out)
        lines.append(f"Left out, being the query image itself: {names}")
    if report.skipped:
        lines.append(f"Skipped {len(report.skipped)} unreadable images (named above).")
    lines.append(f"Wrote {output}")
    return "\n".join(lines) + "\n"
