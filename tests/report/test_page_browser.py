# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The pages in a real browser, at the width of a desktop and of a phone."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import find_browser

from kdps.report.analyses import analyse
from kdps.report.content import ReportContent
from kdps.report.evaluation_content import gather_evaluation
from kdps.report.evaluation_page import render_evaluation
from kdps.report.page import render_page

# Tells the page around what the browser made of the report.
_PROBE = """<script>addEventListener("load", () => {
  const images = [...document.images];
  const tooWide = [...document.querySelectorAll("main *")].filter(
    (e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest("pre, .scroll"));
  parent.postMessage(JSON.stringify({
    width: innerWidth,
    scroll: document.documentElement.scrollWidth,
    broken: images.filter((i) => !i.complete || i.naturalWidth === 0).length,
    images: images.length,
    scrolled: [...document.querySelectorAll(".scroll")].map((e) => e.scrollWidth > e.clientWidth),
    tooWide: tooWide.map((e) => e.tagName + "." + e.className),
    smallest: Math.min(...[...document.querySelectorAll(".cell")].map((e) => e.offsetWidth)),
  }), "*");
});</script>"""

# The report stands in a frame, because a browser's window cannot be as narrow as a phone. The
# answer goes into an attribute that --dump-dom prints.
_AROUND = """<body><script>onmessage = (e) => document.body.dataset.probe = e.data;</script>
<iframe src="report.html" style="border: 0; width: {width}px; height: 900px"></iframe></body>"""


def look_at(page: str, width: int, folder: Path) -> dict[str, Any]:
    """What a browser makes of a page in a window of some width."""
    browser = find_browser()
    page = page.replace("</body>", f"{_PROBE}</body>")
    (folder / "report.html").write_text(page, encoding="utf-8")
    around = folder / "around.html"
    around.write_text(_AROUND.format(width=width), encoding="utf-8")
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--hide-scrollbars", f"--user-data-dir={folder / 'profile'}"),
            *("--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom"),
            around.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    probe = re.search(r'data-probe="([^"]*)"', done.stdout).group(1).replace("&quot;", '"')
    found = json.loads(probe)
    assert found["width"] == width
    assert found["scroll"] <= width
    assert found["tooWide"] == []
    assert found["broken"] == 0
    assert found["smallest"] >= 90
    return found


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 360])
def test_fits_the_window(content: ReportContent, tmp_path: Path, width: int) -> None:
    found = look_at(render_page(content), width, tmp_path)
    assert found["images"] == 4 + 4 * 11
    assert found["scrolled"] == [False]


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scrolled"), [(1280, [False, False]), (360, [True, False])])
def test_evaluation_fits_the_window(
    of_prw: Callable[..., Any], tmp_path: Path, width: int, scrolled: list[bool]
) -> None:
    evaluated = of_prw()
    evaluation, records = evaluated.evaluation, evaluated.records
    analyses = analyse(evaluation, records)
    content = gather_evaluation(evaluation, evaluation.as_dict(), records, analyses)
    found = look_at(render_evaluation(content), width, tmp_path)
    # Charts, and two queries with four hits each.
    assert found["images"] == 4 + 2 * (1 + 4)
    # The wide table of searches moves within its box; that of two cameras has room.
    assert found["scrolled"] == scrolled
