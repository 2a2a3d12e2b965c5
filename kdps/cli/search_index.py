# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps search --index``: in what ``kdps gallery build`` has found."""

from __future__ import annotations

import argparse

from detectron2.config import CfgNode

from kdps.cli.query import QueryScene, choose_person
from kdps.errors import KdpsError
from kdps.footage.moments import Moment, parse_moment
from kdps.footage.sources import indexed_path
from kdps.index.selection import Selection
from kdps.search.indexed import open_searcher
from kdps.search.merging import DEFAULT_MERGING, Merging
from kdps.search.results import SearchReport
from kdps.utils.visualizer import Verdict


def add_index_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--camera``, ``--from``, ``--to`` and ``--merge-gap``, which a folder does not have."""
    group = parser.add_argument_group("in an index")
    group.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="NAME",
        help="search this camera only; can be repeated",
    )
    group.add_argument(
        "--from",
        dest="start",
        metavar="TIME",
        help="seen then or later: a date (2024-05-01T10:30:00, UTC unless it names its offset), or "
        "a time since the beginning of a recording without a date (0:01:30)",
    )
    group.add_argument("--to", dest="end", metavar="TIME", help="seen then or earlier")
    group.add_argument(
        "--merge-gap",
        type=float,
        metavar="SECONDS",
        help="sightings of one person on one camera no further apart are one hit; 0 merges none "
        f"(default: {DEFAULT_MERGING.gap:g})",
    )


def search_index(args: argparse.Namespace, cfg: CfgNode, scene: QueryScene) -> SearchReport:
    """Rank the persons of an index.

    Raises:
        KdpsError: the index cannot be had or is of another model, or an option is of no use.
    """
    if args.dataset:
        raise KdpsError("--dataset: judges the hits of a folder (--gallery), not those of an index")
    gap = DEFAULT_MERGING.gap if args.merge_gap is None else args.merge_gap
    if not gap >= 0:
        raise KdpsError(f"--merge-gap: must be at least 0, not {gap:g}")
    # A video may show the person again; an image can only find itself.
    itself = () if args.at else (str(indexed_path(args.query)),)
    selection = Selection(
        cameras=tuple(args.camera),
        start=_moment(args.start, "--from"),
        end=_moment(args.end, "--to"),
        without=itself,
    )
    with open_searcher(cfg, args.index, Merging(gap=gap)) as searcher:
        box, embedding = choose_person(args, searcher, scene)
        hits = searcher.find(embedding, args.top_k, selection=selection)
        return SearchReport(
            query=args.query,
            box=box,
            gallery=args.index,
            hits=hits,
            verdicts=[Verdict.HIT] * len(hits),
            num_persons=len(searcher.gallery),
            weighted=searcher.weighted,
            query_frame=scene.stamp,
        )


def _moment(text: str | None, field: str) -> Moment | None:
    return None if text is None else parse_moment(text, field)
