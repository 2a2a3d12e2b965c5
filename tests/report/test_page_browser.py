# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The page in a real browser, at the width of a desktop and of a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kdps.report.content import ReportContent
from kdps.report.page import render_page

# Tells the page around what the browser made of the report.
_PROBE = """<script>addEventListener("load", () => {
  const images = [...document.images];
  const tooWide = [...document.querySelectorAll("main *")].filter(
    (e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest("pre"));
  parent.postMessage(JSON.stringify({
    width: innerWidth,
    scroll: document.documentElement.scrollWidth,
    broken: images.filter((i) => !i.complete || i.naturalWidth === 0).length,
    images: images.length,
    tooWide: tooWide.map((e) => e.tagName + "." + e.className),
    smallest: Math.min(...[...document.querySelectorAll(".cell")].map((e) => e.offsetWidth)),
  }), "*");
});</script>"""

# The report stands in a frame, because a browser's window cannot be as narrow as a phone. The
# answer goes into an attribute that --dump-dom prints.
_AROUND = """<body><script>onmessage = (e) => document.body.dataset.probe = e.data;</script>
<iframe src="report.html" style="border: 0; width: {width}px; height: 900px"></iframe></body>"""


def find_browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path:
            return path
    pytest.skip("no Chromium to open the page with")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 360])
def test_fits_the_window(content: ReportContent, tmp_path: Path, width: int) -> None:
    browser = find_browser()
    page = render_page(content).replace("</body>", f"{_PROBE}</body>")
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    around = tmp_path / "around.html"
    around.write_text(_AROUND.format(width=width), encoding="utf-8")
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}"),
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
    assert (found["broken"], found["images"]) == (0, 4 + 4 * 11)
    assert found["smallest"] >= 90
