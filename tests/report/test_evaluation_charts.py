# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from kdps.evaluation.detection import DetectionResult
from kdps.report import evaluation_charts as charts
from kdps.report.analyses import analyse

Evaluate = Callable[..., Any]

LINES = [
    charts.SizeLine(
        label="detections",
        sizes=np.array([50, 100, 6978]),
        mean_ap=np.array([90.0, 88.0, 70.0]),
        lower=np.array([89.0, np.nan, 69.0]),
        upper=np.array([91.0, np.nan, 71.0]),
    )
]


def make_detection(count: int) -> DetectionResult:
    rng = np.random.default_rng(0)
    scores = rng.random(count).astype(np.float32)
    matched = rng.random(count) < scores
    return DetectionResult(0.5, 0.4, 2 * count, scores, matched)


@pytest.fixture(scope="module")
def draw_all(of_cuhk_sysu: Evaluate) -> Callable[[], dict[str, str]]:
    evaluated = of_cuhk_sysu()
    results = {key: search.result for key, search in evaluated.evaluation.searches.items()}
    splits = analyse(evaluated.evaluation, evaluated.records).errors
    return lambda: {
        "cmc": charts.cmc_chart(results),
        "size": charts.size_chart(LINES),
        "precision": charts.precision_chart(results),
        "detection": charts.detection_chart(make_detection(5000)),
        "errors": charts.error_chart(splits),
    }


@pytest.fixture(scope="module")
def drawn(draw_all: Callable[[], dict[str, str]]) -> dict[str, str]:
    return draw_all()


def test_charts_are_svg_and_repeatable(
    draw_all: Callable[[], dict[str, str]], drawn: dict[str, str]
) -> None:
    assert draw_all() == drawn
    for text in drawn.values():
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert len(text) < 100_000


@pytest.mark.parametrize(
    ("chart", "text"),
    [
        ("cmc", "rank k"),
        ("cmc", "person_search_g50"),
        ("size", "gallery images per query (log scale)"),
        ("size", "6,978"),
        ("size", "detections"),
        ("precision", "recall of a query (%)"),
        ("precision", "person_search_all"),
        ("detection", "precision of detections (%)"),
        ("errors", "nobody missed"),
        ("errors", "66.7"),
        ("errors", "62.5"),
    ],
)
def test_texts(drawn: dict[str, str], chart: str, text: str) -> None:
    # Matplotlib names each text in a comment beside its glyphs.
    assert f"<!-- {text} -->" in drawn[chart]


def test_a_handful_of_lines(drawn: dict[str, str]) -> None:
    # Six searches were given; the last one has no line that differs without colour.
    assert "<!-- person_search_g100_gt_boxes -->" in drawn["cmc"]
    assert "<!-- person_search_all_gt_boxes -->" not in drawn["cmc"]
    # On paper without colour, each has dashes of its own.
    dashes = {str(style["linestyle"]) for style in charts.LINE_STYLES}
    assert len(dashes) == charts.MAX_LINES == 5


def test_cmc_begins_near_its_lowest_value(of_prw: Evaluate) -> None:
    chart = charts.cmc_chart({"half": of_prw().evaluation.searches["person_search"].result})
    # The ticks of the vertical axis come behind the label of the other one.
    ticks = re.findall(r"<!-- (\d+) -->", chart.partition("<!-- rank k -->")[2])
    assert ticks[0] == "40"


def test_galleries_are_as_far_apart_as_they_double(drawn: dict[str, str]) -> None:
    # Where the ticks are, in pixels.
    tick = r'<g id="xtick_\d">.*?<use xlink:href="#\w+" x="([\d.]+)"'
    places = [float(place) for place in re.findall(tick, drawn["size"], re.DOTALL)]
    octave = places[1] - places[0]
    assert places[2] - places[1] == pytest.approx(octave * np.log2(69.78), rel=0.01)


def test_labels_do_not_run_into_each_other() -> None:
    sizes = np.array([50, 500, 539])
    line = replace(LINES[0], sizes=sizes)
    chart = charts.size_chart([line])
    assert [f"<!-- {size} -->" in chart for size in sizes] == [True, False, True]


def test_no_error_is_a_bar_without_length_and_says_so(of_prw: Evaluate) -> None:
    evaluated = of_prw()
    (split,) = analyse(evaluated.evaluation, evaluated.records).errors.values()
    chart = charts.error_chart({"one": replace(split, missed_mended=float("nan"))})
    assert "<!-- not known -->" in chart
    # A single search needs no legend.
    assert "<!-- one -->" not in chart


def test_no_detection_at_all() -> None:
    ElementTree.fromstring(charts.detection_chart(make_detection(0)))
