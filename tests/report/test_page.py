# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import base64
import io
import logging
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from PIL import Image

from kdps.report.content import ReportContent
from kdps.report.page import render_page

_VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Checks that elements nest, and keeps what a test asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def images(self) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.elements if tag == "img"]


def decode(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2])


@pytest.fixture(scope="module")
def text(content: ReportContent) -> str:
    return render_page(content)


def test_well_formed(text: str) -> None:
    page = Page(text)
    assert page.open == []
    tags = [tag for tag, _ in page.elements]
    assert text.lstrip().startswith("<!DOCTYPE html>")
    assert (tags.count("h1"), tags.count("table"), tags.count("script")) == (1, 1, 0)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_nothing_outside_is_needed(text: str) -> None:
    page = Page(text)
    assert not any(tag in ("link", "iframe", "script", "base") for tag, _ in page.elements)
    for tag, attrs in page.elements:
        for name in ("src", "href", "srcset", "data"):
            if name in attrs:
                assert attrs[name].startswith("data:"), (tag, name)
    visible = re.sub(r"data:[a-z/+]+;base64,[A-Za-z0-9+/=]+", "", text)
    assert "://" not in visible
    assert "@import" not in visible
    assert "url(" not in visible


def test_pictures_can_be_decoded_and_have_alternatives(text: str) -> None:
    images = Page(text).images
    # 4 charts; 4 queries with their own picture and 10 hits each.
    assert len(images) == 4 + 4 * 11
    for attrs in images:
        assert attrs["alt"]
        if attrs["src"].startswith("data:image/svg+xml"):
            ElementTree.fromstring(decode(attrs["src"]))
        else:
            picture = Image.open(io.BytesIO(decode(attrs["src"])))
            assert picture.size == (int(attrs["width"]), int(attrs["height"]))


def test_text_from_outside_is_escaped(text: str) -> None:
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_numbers_are_those_of_the_content(content: ReportContent, text: str) -> None:
    words = " ".join(" ".join(Page(text).words).split())
    for row in content.rows:
        assert row.label in words
        assert f"{row.metrics['mAP']:.1f}" in words
    assert f"{100 * content.detection.recall:.1f} %" in words
    for query in content.shown:
        assert f"Query {query.query_id}: average precision {query.ap:.1f} %" in words


def test_size_cap(content: ReportContent, text: str, caplog: pytest.LogCaptureFixture) -> None:
    full = len(text.encode())
    smaller = render_page(content, max_bytes=int(full * 0.9))
    assert len(smaller.encode()) <= full * 0.9
    assert len(Page(smaller).images) == len(Page(text).images)
    with caplog.at_level(logging.WARNING):
        smallest = render_page(content, max_bytes=int(full * 0.55))
    assert len(smallest.encode()) <= full * 0.55
    assert 4 < len(Page(smallest).images) < len(Page(text).images)
    assert "queries less" in caplog.text
    assert "left out to keep this file small" in smallest


def test_without_history_note_and_config(content: ReportContent) -> None:
    bare = render_page(replace(content, history=None, note="", config="", shown=()))
    page = Page(bare)
    assert len(page.images) == 2
    assert not any(tag == "details" for tag, _ in page.elements)
    noted = render_page(replace(content, note="Tiny & closed.", shown=()))
    assert "<p>Tiny &amp; closed.</p>" in noted
