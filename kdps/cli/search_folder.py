# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps search --gallery``: in a folder of images, looked at on the spot."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from kdps.cli.query import QueryScene, choose_person
from kdps.engine.predictor import PersonSearchPredictor
from kdps.errors import KdpsError
from kdps.search.identities import KnownIdentities
from kdps.search.images import find_images, read_bgr, same_image
from kdps.search.results import SearchReport
from kdps.search.searcher import PersonSearcher
from kdps.utils.visualizer import Verdict

logger = logging.getLogger(__name__)


def search_folder(args: argparse.Namespace, cfg: CfgNode, scene: QueryScene) -> SearchReport:
    """Find the persons of a folder and rank them.

    Raises:
        KdpsError: the folder holds nothing that can be searched, or an option is of no use.
    """
    given = {"camera": args.camera, "from": args.start, "to": args.end}
    useless = [name for name, value in {**given, "merge-gap": args.merge_gap}.items() if value]
    if useless:
        raise KdpsError(f"--{useless[0]}: a folder has no cameras and times; search in an --index")
    images = find_images(args.gallery)
    identities = KnownIdentities.of_dataset(args.dataset) if args.dataset else None
    searcher = PersonSearcher(
        PersonSearchPredictor(cfg),
        score_thresh=cfg.TEST.PERSON_SEARCH.SCORE_THRESH,
        weighted=cfg.TEST.PERSON_SEARCH.WEIGHTED,
    )
    box, embedding = choose_person(args, searcher, scene)
    left_out = [path for path in images if same_image(path, args.query)]
    skipped = _fill_gallery(searcher, [path for path in images if path not in left_out])
    hits = searcher.find(embedding, args.top_k)
    return SearchReport(
        query=args.query,
        box=box,
        gallery=str(args.gallery),
        hits=hits,
        verdicts=_verdicts(identities, args.query, box, [(h.source, h.box) for h in hits]),
        num_images=len(searcher.gallery.sources),
        num_persons=len(searcher.gallery),
        weighted=searcher.weighted,
        left_out=left_out,
        skipped=skipped,
        query_frame=scene.stamp,
    )


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
