# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Options by which a subcommand is told how to search."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import torch

from kdps.errors import KdpsError
from kdps.evaluation.context_matching import DEFAULT_K
from kdps.evaluation.settings import (
    CAMERAS,
    PROTOCOLS,
    SearchSettings,
    SettingError,
    published_set,
    settings_from_meta,
)


def add_search_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--protocol``, ``--score-thresh`` and all else that changes the numbers of a search."""
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


def settings_of(args: argparse.Namespace, meta: Mapping[str, Any], dataset: str) -> SearchSettings:
    """The settings that the arguments, a detections file and a data set ask for, in this order.

    Args:
        args: parsed arguments, ``detections`` being the file.
        meta: of the file.
        dataset: name of the data set or its layout.

    Raises:
        KdpsError: an option or a value of the file is at fault.
    """
    _require_device(args.device)
    try:
        settings = settings_from_meta(meta, dataset)
        # Checked by themselves, so that the file gets the blame for its own values.
        SearchSettings(**settings)
    except KdpsError as error:
        raise KdpsError(f"{args.detections}: meta: {str(error).removeprefix('meta: ')}") from None
    given = {"score_thresh": args.score_thresh, "weighted": args.weighted}
    settings.update({name: value for name, value in given.items() if value is not None})
    k1, k2 = DEFAULT_K[published_set(dataset)]
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
    except SettingError as error:
        raise KdpsError(f"--{error.name.replace('_', '-')}: {error.fault}") from None


def _require_device(name: str) -> None:
    try:
        torch.zeros(1, device=name).tolist()
    # Torch has no error of its own for a device that it was not built for.
    except (RuntimeError, AssertionError):
        raise KdpsError(f"--device: {name!r} cannot be used here") from None
