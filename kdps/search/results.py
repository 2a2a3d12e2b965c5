# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A finished search, as a sheet, a table and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from kdps.report.cells import Cell, person_picture
from kdps.report.sheets import compose_sheet
from kdps.search.gallery import Hit
from kdps.search.images import read_bgr
from kdps.utils.visualizer import Verdict


@dataclass(frozen=True)
class SearchReport:
    """What was searched where, and what was found.

    Attributes:
        query: path of the query image.
        box: XYXY absolute pixels of the person searched for.
        gallery: the folder searched in.
        hits: best first; their sources are paths.
        verdicts: one per hit.
        num_images: images searched.
        num_persons: persons found in them.
        weighted: whether similarities are weighted by detection scores.
        left_out: paths of images that are the query image itself.
        skipped: unreadable images, path to reason.
    """

    query: Path
    box: tuple[float, float, float, float]
    gallery: Path
    hits: Sequence[Hit]
    verdicts: Sequence[Verdict]
    num_images: int
    num_persons: int
    weighted: bool
    left_out: Sequence[Path] = ()
    skipped: dict[Path, str] = field(default_factory=dict)

    def sheet(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB picture of the query and its hits."""
        cells = []
        for rank, (hit, verdict) in enumerate(zip(self.hits, self.verdicts, strict=True), 1):
            image = read_bgr(hit.source)[:, :, ::-1]
            lines = (
                f"similarity {hit.similarity:.3f}",
                f"score {hit.score:.2f}",
                self._relative(hit.source),
            )
            picture = person_picture(image, hit.box, verdict)
            cells.append(Cell(picture, verdict, str(rank), lines))
        scene = read_bgr(self.query)[:, :, ::-1]
        picture = person_picture(scene, self.box, Verdict.QUERY)
        query = Cell(picture, Verdict.QUERY, "Query", (self.query.name,))
        measure = "cosine similarity x detection score" if self.weighted else "cosine similarity"
        return compose_sheet(
            query,
            cells,
            f"Person search: {self.query.name} in {self.gallery.name or self.gallery}",
            f"{self.num_images} images, {self.num_persons} persons found, ranked by {measure}",
        )

    def table(self) -> str:
        """The hits as a text table."""
        known = any(verdict is not Verdict.HIT for verdict in self.verdicts)
        rows = []
        for rank, (hit, verdict) in enumerate(zip(self.hits, self.verdicts, strict=True), 1):
            x0, y0, x1, y1 = hit.box
            box = f"{x0:.0f} {y0:.0f} {x1 - x0:.0f} {y1 - y0:.0f}"
            row = [rank, hit.similarity, hit.score, box, self._relative(hit.source)]
            rows.append([*row, verdict.meaning] if known else row)
        headers = ["rank", "similarity", "score", "box (x y w h)", "image"]
        return tabulate(
            rows,
            headers=[*headers, "person"] if known else headers,
            floatfmt=("", ".4f", ".3f"),
            disable_numparse=[3, 4],
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON values; boxes are XYXY absolute pixels."""
        return {
            "query": {"image": str(self.query), "bbox": list(self.box)},
            "gallery": str(self.gallery),
            "weighted": self.weighted,
            "num_images": self.num_images,
            "num_persons": self.num_persons,
            "left_out": [str(path) for path in self.left_out],
            "skipped": {str(path): reason for path, reason in self.skipped.items()},
            "hits": [
                {
                    "rank": rank,
                    "image": hit.source,
                    "bbox": list(hit.box),
                    "score": hit.score,
                    "similarity": hit.similarity,
                    "verdict": verdict.name.lower(),
                }
                for rank, (hit, verdict) in enumerate(zip(self.hits, self.verdicts, strict=True), 1)
            ],
        }

    def _relative(self, source: str) -> str:
        return str(Path(source).relative_to(self.gallery))
