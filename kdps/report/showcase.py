# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Queries that are worth showing, with what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdps.data.protocol import SearchProtocol
from kdps.evaluation.search import SearchResult
from kdps.report.cells import Cell, person_picture
from kdps.search.images import read_bgr
from kdps.structures.detections import Detections
from kdps.utils.visualizer import Verdict

GROUPS = ("best", "worst", "random")
_MAX_TRUTHS = 5


@dataclass(frozen=True)
class ShownQuery:
    """A query, its hits and how it went.

    Attributes:
        query_id: index in the protocol.
        group: why it is shown: "best", "worst" or "random".
        image: name of its image.
        ap: average precision in percent.
        num_truths: appearances of the person in the gallery.
        num_found: of these, how many a detection covers.
        first_rank: rank of the first right hit; 0 if there is none.
        query: its cell.
        hits: cells of the best hits.
        truths: cells of some annotated appearances, where no hit that is shown is right.
    """

    query_id: int
    group: str
    image: str
    ap: float
    num_truths: int
    num_found: int
    first_rank: int
    query: Cell
    hits: tuple[Cell, ...]
    truths: tuple[Cell, ...]


def choose_queries(result: SearchResult, number: int, seed: int) -> list[tuple[int, str]]:
    """Pick queries from the best, the worst and by chance, a third each.

    Among queries with equal average precision, those with more appearances to find come first.

    Args:
        result: what was searched.
        number: how many to pick, at most; the left over of the thirds goes to the first groups.
        seed: of the chance.

    Returns:
        (query id, group), group after group, no query twice.
    """
    ids = np.flatnonzero(result.scored)
    ap, truths = result.ap[ids], result.num_truths[ids]
    shares = [number // 3 + (index < number % 3) for index in range(3)]
    best = ids[np.lexsort((ids, -truths, -ap))]
    worst = ids[np.lexsort((ids, -truths, ap))]
    chance = np.random.default_rng(seed).permutation(ids)
    chosen: dict[int, str] = {}
    for group, order, share in zip(GROUPS, (best, worst, chance), shares, strict=True):
        free = [int(query) for query in order if int(query) not in chosen]
        chosen.update(dict.fromkeys(free[:share], group))
    return list(chosen.items())


def show_query(
    query_id: int,
    group: str,
    result: SearchResult,
    detections: Detections,
    protocol: SearchProtocol,
    files: Mapping[str, str],
) -> ShownQuery:
    """Draw a query and its hits.

    Args:
        query_id: index in the protocol.
        group: see ``ShownQuery``.
        result: what was searched.
        detections: the ones that were searched.
        protocol: queries and images.
        files: image name to path.

    Raises:
        KdpsError: an image cannot be read.
    """
    query = protocol.queries[query_id]
    image_of_det = detections.image_of_det
    hits = []
    for place, row in enumerate(result.top[query_id]):
        if row < 0:
            break
        right = bool(result.on_person[query_id, place])
        verdict = Verdict.RIGHT if right else Verdict.WRONG
        name = detections.names[image_of_det[row]]
        lines = [f"similarity {result.similarity[query_id, place]:.3f}"]
        if right and not result.counted[query_id, place]:
            lines.append("second box, not counted")
        picture = _picture(files[name], detections.det[row, :4], verdict)
        hits.append(Cell(picture, verdict, str(place + 1), (*lines, name)))
    return ShownQuery(
        query_id=query_id,
        group=group,
        image=query.image,
        ap=100 * float(result.ap[query_id]),
        num_truths=int(result.num_truths[query_id]),
        num_found=len(result.ranks[query_id]),
        first_rank=int(result.first_rank[query_id]),
        query=Cell(
            _picture(files[query.image], query.bbox, Verdict.QUERY),
            Verdict.QUERY,
            "Query",
            (query.image,),
        ),
        hits=tuple(hits),
        truths=()
        if any(hit.verdict is Verdict.RIGHT for hit in hits)
        else _truth_cells(protocol, query_id, files),
    )


def _truth_cells(
    protocol: SearchProtocol, query_id: int, files: Mapping[str, str]
) -> tuple[Cell, ...]:
    gallery = protocol.galleries[query_id]
    places = zip(gallery.truth_images[:_MAX_TRUTHS], gallery.truth_boxes, strict=False)
    cells = []
    for image, box in places:
        name = protocol.images[image]
        picture = _picture(files[name], box, Verdict.TRUTH)
        cells.append(Cell(picture, Verdict.TRUTH, "Annotated", (name,)))
    return tuple(cells)


def image_files(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Image name to path."""
    return {record["image_id"]: record["file_name"] for record in records}


def _picture(path: str, box: Sequence[float], verdict: Verdict) -> np.ndarray:
    return person_picture(read_bgr(path)[:, :, ::-1], box, verdict)
