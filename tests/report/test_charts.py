# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from xml.etree import ElementTree

import pytest

from kdps.report import charts
from kdps.report.content import ReportContent


def draw_all(content: ReportContent) -> dict[str, str]:
    return {
        "cmc": charts.cmc_chart(content.rows),
        "ap": charts.ap_histogram(content.rows[0].result),
        "loss": charts.loss_chart(content.history),
        "map": charts.map_chart(content.history),
    }


@pytest.fixture(scope="module")
def drawn(content: ReportContent) -> dict[str, str]:
    return draw_all(content)


def test_charts_are_svg_and_repeatable(content: ReportContent, drawn: dict[str, str]) -> None:
    assert draw_all(content) == drawn
    for text in drawn.values():
        root = ElementTree.fromstring(text)
        assert root.tag.endswith("svg")
        assert len(text) < 200_000


@pytest.mark.parametrize(
    ("chart", "label"),
    [
        ("cmc", "rank k"),
        ("cmc", "queries found by rank k (%)"),
        ("loss", "iteration"),
        ("map", "mAP"),
    ],
)
def test_axes_are_labelled(drawn: dict[str, str], chart: str, label: str) -> None:
    # Matplotlib names each text in a comment beside its glyphs.
    assert f"<!-- {label}" in drawn[chart]


def test_a_line_for_each_row(content: ReportContent, drawn: dict[str, str]) -> None:
    for row in content.rows:
        assert f"<!-- {row.label} -->" in drawn["cmc"]
