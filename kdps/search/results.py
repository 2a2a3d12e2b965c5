# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A finished search, as a sheet, a table and JSON."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from kdps.errors import KdpsError
from kdps.footage.frames import read_scene
from kdps.report.cells import Cell, person_picture
from kdps.report.sheets import CELL_SIZE, compose_sheet
from kdps.search.gallery import Hit
from kdps.utils.visualizer import Verdict

logger = logging.getLogger(__name__)

_GONE_GREY = 200


@dataclass(frozen=True)
class SearchReport:
    """What was searched where, and what was found.

    Attributes:
        query: path of the query image.
        box: XYXY absolute pixels of the person searched for.
        gallery: the folder or the index searched in.
        hits: best first; their sources are paths.
        verdicts: one per hit.
        num_persons: persons in the gallery.
        weighted: whether similarities are weighted by detection scores.
        num_images: images searched; None in an index.
        left_out: paths of images that are the query image itself.
        skipped: unreadable images, path to reason.
        query_frame: time stamp of the query's frame if it is from a video.
    """

    query: Path
    box: tuple[float, float, float, float]
    gallery: str
    hits: Sequence[Hit]
    verdicts: Sequence[Verdict]
    num_persons: int
    weighted: bool
    num_images: int | None = None
    left_out: Sequence[Path] = ()
    skipped: dict[Path, str] = field(default_factory=dict)
    query_frame: int = 0

    def sheet(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB picture of the query and its hits."""
        cells = []
        for rank, (hit, verdict) in enumerate(zip(self.hits, self.verdicts, strict=True), 1):
            caption = self._caption(hit)
            cells.append(Cell(hit_picture(hit, verdict), verdict, str(rank), caption))
        scene = read_scene(str(self.query), self.query_frame)[:, :, ::-1]
        picture = person_picture(scene, self.box, Verdict.QUERY)
        query = Cell(picture, Verdict.QUERY, "Query", (self.query.name,))
        measure = "cosine similarity x detection score" if self.weighted else "cosine similarity"
        return compose_sheet(
            query,
            cells,
            f"Person search: {self.query.name} in {Path(self.gallery).name or self.gallery}",
            f"{self._searched()}, ranked by {measure}",
        )

    def table(self) -> str:
        """The hits as a text table."""
        known = any(verdict is not Verdict.HIT for verdict in self.verdicts)
        placed = any(hit.camera for hit in self.hits)
        rows = []
        for rank, (hit, verdict) in enumerate(zip(self.hits, self.verdicts, strict=True), 1):
            x0, y0, x1, y1 = hit.box
            box = f"{x0:.0f} {y0:.0f} {x1 - x0:.0f} {y1 - y0:.0f}"
            row = [rank, hit.similarity, hit.score, box, self._relative(hit.source)]
            row += [hit.camera, _when(hit), hit.sightings] if placed else []
            rows.append([*row, verdict.meaning] if known else row)
        headers = ["rank", "similarity", "score", "box (x y w h)", "image"]
        headers += ["camera", "time", "sightings"] if placed else []
        return tabulate(
            rows,
            headers=[*headers, "person"] if known else headers,
            floatfmt=("", ".4f", ".3f"),
            disable_numparse=[3, 4, 5, 6] if placed else [3, 4],
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON values; boxes are XYXY absolute pixels."""
        return {
            "query": {"image": str(self.query), "bbox": list(self.box)},
            "gallery": self.gallery,
            "weighted": self.weighted,
            "num_images": self.num_images,
            "num_persons": self.num_persons,
            "left_out": [str(path) for path in self.left_out],
            "skipped": {str(path): reason for path, reason in self.skipped.items()},
            "hits": [
                {**hit_values(rank, hit), "verdict": verdict.name.lower()}
                for rank, (hit, verdict) in enumerate(zip(self.hits, self.verdicts, strict=True), 1)
            ],
        }

    def _caption(self, hit: Hit) -> tuple[str, str, str]:
        # A sheet's cell is narrow; its subtitle says what the number is.
        merged = f"{hit.similarity:.3f}, seen {hit.sightings} x"
        name = self._relative(hit.source)
        # A video that has no camera is one of its own, with its name.
        named = hit.camera and hit.camera != Path(name).stem
        return (
            merged if hit.sightings > 1 else f"similarity {hit.similarity:.3f}",
            str(hit.moment) or f"score {hit.score:.2f}",
            f"{hit.camera}: {name}" if named else name,
        )

    def _searched(self) -> str:
        if self.num_images is None:
            return f"{self.num_persons} persons in the index"
        return f"{self.num_images} images, {self.num_persons} persons found"

    def _relative(self, source: str) -> str:
        path = Path(source)
        return str(path.relative_to(self.gallery)) if self.num_images is not None else path.name


def hit_values(rank: int, hit: Hit) -> dict[str, Any]:
    """JSON values of one hit; its box is XYXY absolute pixels."""
    return {
        "rank": rank,
        "image": hit.source,
        "bbox": list(hit.box),
        "score": hit.score,
        "similarity": hit.similarity,
        **(_where(hit) if hit.camera else {}),
    }


def hit_picture(hit: Hit, verdict: Verdict = Verdict.HIT) -> np.ndarray:
    """The person of a hit, (H, W, 3) uint8 RGB; grey where the footage is gone since it was
    indexed."""
    try:
        image = read_scene(hit.source, hit.frame)[:, :, ::-1]
    except KdpsError as error:
        logger.warning("no picture: %s", error)
        return np.full((*CELL_SIZE[::-1], 3), _GONE_GREY, dtype=np.uint8)
    return person_picture(image, hit.box, verdict)


def _when(hit: Hit) -> str:
    if hit.first == hit.last:
        return str(hit.moment)
    return f"{hit.moment} ({hit.first} to {hit.last})"


def _where(hit: Hit) -> dict[str, Any]:
    """What an index knows of a hit beside; times are empty where they are not known."""
    return {
        "camera": hit.camera,
        "frame": hit.frame,
        "time": str(hit.moment),
        "first": str(hit.first),
        "last": str(hit.last),
        "sightings": hit.sightings,
    }
