# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import ImageDraw

from kdps.footage.moments import Clock, Moment
from kdps.search.gallery import Hit
from kdps.search.results import SearchReport
from kdps.utils.visualizer import Verdict

RECORDED = {"moment": Moment(Clock.RECORDING, 77_800_000)}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts on a sheet; what does not fit is shortened before it is drawn."""
    texts: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def record(self: ImageDraw.ImageDraw, xy: Any, text: str, *args: Any, **kwargs: Any) -> None:
        texts.append(text)
        draw(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    return texts


@pytest.mark.parametrize(
    ("values", "caption"),
    [
        ({}, ("similarity 0.854", "score 0.90", "door.mp4")),
        ({"camera": "yard", **RECORDED}, ("similarity 0.854", "00:01:17.800", "yard: door.mp4")),
        (
            {"camera": "door", "sightings": 104, **RECORDED},
            ("0.854, seen 104 x", "00:01:17.800", "door.mp4"),
        ),
    ],
)
def test_a_hit_has_its_whole_caption_beside_a_rank_of_two_digits(
    tmp_path: Path, drawn: list[str], values: dict[str, Any], caption: tuple[str, ...]
) -> None:
    cv2.imwrite(str(tmp_path / "query.png"), np.zeros((32, 32, 3), np.uint8))
    hit = Hit(str(tmp_path / "door.mp4"), (0, 0, 8, 16), score=0.9, similarity=0.8537, **values)
    report = SearchReport(
        query=tmp_path / "query.png",
        box=(0, 0, 8, 16),
        gallery="footage.db",
        hits=[hit] * 10,
        verdicts=[Verdict.HIT] * 10,
        num_persons=10,
        weighted=True,
    )
    report.sheet()
    last = drawn.index("10")
    assert tuple(drawn[last + 1 : last + 4]) == caption
