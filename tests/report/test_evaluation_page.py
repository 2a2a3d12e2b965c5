# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from kdps.report.analyses import Analyses, analyse
from kdps.report.evaluation_content import EvaluationContent, SearchRow, gather_evaluation
from kdps.report.evaluation_page import choose_lines, render_evaluation, size_lines

Evaluate = Callable[..., Any]


class Page(HTMLParser):
    """What a test asks for: images, tables as rows of texts, headings, all words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag in ("h2", "h3"):
            self.headings.append("")
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings[-1] += data

    @property
    def text(self) -> str:
        # Splitting takes no-break spaces for spaces.
        return " ".join(" ".join(self.words).split())


def gather(evaluated: Any, **options: Any) -> EvaluationContent:
    evaluation = evaluated.evaluation
    analyses = analyse(evaluation, evaluated.records)
    numbers = evaluation.as_dict()
    return gather_evaluation(evaluation, numbers, evaluated.records, analyses, **options)


@pytest.fixture(scope="module")
def of_sizes(of_cuhk_sysu: Evaluate) -> EvaluationContent:
    return gather(of_cuhk_sysu(), origin={"command": "kdps evaluate <script>alert(1)</script>"})


@pytest.fixture(scope="module")
def of_cameras(of_prw: Evaluate) -> EvaluationContent:
    return gather(of_prw())


@pytest.fixture(scope="module")
def sizes(of_sizes: EvaluationContent) -> Page:
    return Page(render_evaluation(of_sizes))


@pytest.fixture(scope="module")
def cameras(of_cameras: EvaluationContent) -> Page:
    return Page(render_evaluation(of_cameras))


def test_table_has_all_searches(sizes: Page) -> None:
    (table,) = sizes.tables
    assert [cell.strip() for cell in table[1]] == [
        "50 imagesperson_search_g50",
        "66.7",
        "33.3\N{THIN SPACE}\N{EN DASH}\N{THIN SPACE}100.0",
        *("50.0", "100.0", "100.0"),
        *("2", "0", "2"),
    ]
    assert [row[0].split("person_search")[1] for row in table[1:]] == [
        *("_g50", "_g100", "_all"),
        *("_g50_gt_boxes", "_g100_gt_boxes", "_all_gt_boxes"),
    ]


def test_sections(sizes: Page, cameras: Page) -> None:
    assert "What the errors cost" in sizes.headings
    assert "From camera to camera" not in sizes.headings
    assert "From camera to camera" in cameras.headings
    # The headings of the searches whose errors are split.
    assert {"50 images", "100 images", "whole set"} < set(sizes.headings)


def test_words(sizes: Page, cameras: Page) -> None:
    for words in (
        "Evaluation on made_cuhk",
        "mAP is 66.7",
        "100.0 if nothing wrong were ranked above.",
        "In 1 query something wrong stands above a right answer",
        "3 of the searches are in the table only",
        "Of the first search above: 50 images.",
        "query mode given_box",
        "galleries 50, 100, all",
        "method made <b>up</b>",
    ):
        assert words in sizes.text, words
    assert "in the table only" not in cameras.text
    assert "Query 0: average precision 100.0 %" in cameras.text


def test_camera_pairs(cameras: Page) -> None:
    table = [[cell.strip() for cell in row] for row in cameras.tables[1]]
    assert table == [
        ["query from", "in camera 1", "in camera 2"],
        ["camera 1", "no query", "100.0top-1 100.0n = 1"],
        ["camera 2", "33.3top-1 0.0n = 1", "no query"],
    ]
    shades = [attrs.get("style") for tag, attrs in cameras.tags if tag == "td"][-4:]
    assert shades == [
        None,
        "background: rgba(0, 114, 178, 0.400)",
        "background: rgba(0, 114, 178, 0.000)",
        None,
    ]


def test_small_differences_look_small(of_cameras: EvaluationContent) -> None:
    (pairs,) = of_cameras.analyses.camera_pairs.values()
    close = replace(pairs, mean_ap=np.array([[np.nan, 0.85], [0.80, np.nan]]))
    analyses = replace(of_cameras.analyses, camera_pairs={"person_search": close})
    text = render_evaluation(replace(of_cameras, analyses=analyses, shown=()))
    assert re.findall(r"rgba\(0, 114, 178, ([\d.]+)\)", text) == ["0.400", "0.200"]


def test_nothing_outside_is_needed(of_sizes: EvaluationContent, sizes: Page) -> None:
    text = render_evaluation(of_sizes)
    assert text.lstrip().startswith("<!DOCTYPE html>")
    assert not {tag for tag, _ in sizes.tags} & {"script", "link", "iframe", "base"}
    for _, attrs in sizes.tags:
        for name in ("src", "href", "srcset", "data"):
            assert attrs.get(name, "data:").startswith("data:")
    visible = re.sub(r"data:[a-z/+]+;base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"://|@import|url\(", visible)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    ids = [attrs["id"] for _, attrs in sizes.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_pictures_can_be_decoded_and_have_alternatives(sizes: Page, cameras: Page) -> None:
    # Curves and errors, and 2 queries: 3 hits in 2 images, 4 in 3.
    charts = [image for image in sizes.images if image["src"].startswith("data:image/svg")]
    assert (len(charts), len(sizes.images) - len(charts)) == (5, 2 + 2 * 3)
    for image in sizes.images + cameras.images:
        assert image["alt"]
        content = base64.b64decode(image["src"].partition(",")[2])
        if image in charts or "svg" in image["src"][:20]:
            ElementTree.fromstring(content)
        else:
            Image.open(io.BytesIO(content)).verify()


def test_one_size_has_no_chart_over_sizes(cameras: Page) -> None:
    charts = [image for image in cameras.images if image["src"].startswith("data:image/svg")]
    assert len(charts) == 4
    assert not any(image["alt"].startswith("mAP by gallery images") for image in charts)


def test_lines_over_sizes(of_sizes: EvaluationContent, sizes: Page) -> None:
    own, annotated = size_lines(of_sizes.rows)
    assert (own.label, annotated.label) == ("detections", "annotated boxes")
    # The whole set stands at the images it has, as the list of 100 does here.
    assert own.sizes.tolist() == [2, 3, 3]
    assert own.mean_ap == pytest.approx([200 / 3, 62.5, 62.5])
    assert own.upper.tolist() == [100, 100, 100]
    assert size_lines(of_sizes.rows[1:3]) == []
    alts = [image["alt"] for image in sizes.images]
    assert any("detections 66.7 in 2, 62.5 in 3, 62.5 in 3; annotated" in alt for alt in alts)


def test_chosen_lines() -> None:
    def rows(sizes: int, annotated: bool = False) -> list[SearchRow]:
        return [SearchRow(f"g{i}", "", i, annotated, None, {}, None, {}) for i in range(sizes)]

    assert choose_lines(rows(2) + rows(2, annotated=True)) == rows(2) + rows(2, annotated=True)
    assert choose_lines(rows(3) + rows(3, annotated=True)) == rows(3)
    chosen = choose_lines(rows(7) + rows(7, annotated=True))
    assert [row.size for row in chosen] == [0, 2, 3, 4, 6]


def test_without_analyses_pictures_and_meta(of_cameras: EvaluationContent) -> None:
    bare = replace(
        of_cameras,
        analyses=Analyses({}, {}),
        shown=(),
        pictures_note="No pictures: image a.jpg does not exist.",
        evaluation=replace(of_cameras.evaluation, meta={}),
        set_note="Tiny & closed.",
    )
    text = render_evaluation(bare)
    page = Page(text)
    assert page.headings == [
        *("Accuracy", "Curves", "Queries and what they found", "How it was measured", "Settings")
    ]
    assert "No pictures: image a.jpg does not exist." in page.text
    assert "<p>Tiny &amp; closed.</p>" in text


def test_queries_without_embedding_are_told(of_cameras: EvaluationContent) -> None:
    (row,) = of_cameras.rows
    row = replace(row, counts={**row.counts, "not_embedded": 1})
    page = Page(render_evaluation(replace(of_cameras, rows=(row,))))
    assert "Detections: 1 queries have no embedding and find nothing." in page.text


def test_size_cap(of_cameras: EvaluationContent) -> None:
    full = len(render_evaluation(of_cameras).encode())
    smaller = render_evaluation(of_cameras, max_bytes=int(0.97 * full))
    assert len(smaller.encode()) <= 0.97 * full
