# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps serve`` in a real browser, at the width of a desktop and of a phone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import find_browser
from command_line import runner
from tiny_setup import Setup, make_footage, make_setup

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.slow

# Milliseconds; machines that test are busy.
PATIENCE = 180_000


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return make_setup(tmp_path_factory.mktemp("serve"), tmp_path_factory.mktemp("serve_images"))


@pytest.fixture(scope="module")
def address(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where ``kdps serve`` serves an index, with uploads of up to 50 kB."""
    find_browser()  # or skip before all the work
    folder = tmp_path_factory.mktemp("served")
    footage = make_footage(folder / "footage", setup.images)
    model = {"config_file": setup.config, "weights": setup.weights, "index": folder / "f.db"}
    assert runner("gallery build", **model, input=footage)() == 0
    argv = [f"--{name.replace('_', '-')}={value}" for name, value in model.items()]
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "kdps.cli.main", "serve", *argv),
            *("--port=0", "--max-upload=0.05"),
        ],
        stdout=subprocess.PIPE,
        stderr=(folder / "log").open("w"),
        env={**os.environ, "KDPS_CACHE": "0"},
        text=True,
    )
    told = re.search(r"Serving \d+ persons at (http://127\.0\.0\.1:\d+)", server.stdout.readline())
    assert told, (folder / "log").read_text()
    yield told[1]
    server.terminate()
    server.wait(timeout=60)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[1280, 390])
def page(request: pytest.FixtureRequest, chromium: Any, address: str) -> Iterator[Any]:
    """The page in a window of some width, with a note of what it asked for and complained of."""
    context = chromium.new_context(
        viewport={"width": request.param, "height": 844}, accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.asked, page.faults = [], []
    page.on("request", lambda asked: page.asked.append(asked.url))
    page.on("pageerror", lambda fault: page.faults.append(str(fault)))
    page.goto(address)
    page.get_by_role("tab", name="An image of your own").click()
    yield page
    # Nothing is fetched from elsewhere: no telemetry, fonts or scripts.
    assert all(url.startswith((address, "data:", "blob:")) for url in page.asked), page.asked
    assert page.faults == []
    assert page.evaluate("document.documentElement.scrollWidth") <= request.param
    context.close()


def hits_of(page: Any, folder: Path) -> list[dict[str, Any]]:
    """The list that the page offers for download."""
    with page.expect_download() as download:
        page.get_by_role("link", name="JSON").click()
    download.value.save_as(folder / "hits.json")
    assert download.value.suggested_filename == "hits.json"
    hits = json.loads((folder / "hits.json").read_text())
    assert len(hits) == page.locator(".hit").count()
    return hits


def test_from_an_upload_to_the_frame_of_a_hit(page: Any, setup: Setup, tmp_path: Path) -> None:
    page.locator("input[type=file]").set_input_files(setup.images / "1.png")
    page.get_by_text("your image:").wait_for()
    # Boxes of random weights overlap; a click by mouse would hit the uppermost.
    page.locator(".person").nth(3).dispatch_event("click")
    page.locator(".hit").first.wait_for()
    assert "chosen" in page.locator(".person").nth(3).get_attribute("class")
    everywhere = hits_of(page, tmp_path)
    assert {hit["camera"] for hit in everywhere} == {"footage", "door"}
    # The same file is in the index, and the same person in it.
    assert everywhere[0]["similarity"] == pytest.approx(1, abs=1e-4)
    assert page.locator(".hit .similarity").first.inner_text() == "1.000"

    page.get_by_label("Only on cameras").click()
    page.get_by_role("option", name="door").click()
    page.get_by_label("From", exact=True).fill("0:01")
    page.get_by_label("To", exact=True).fill("0:02")
    page.get_by_role("button", name="Apply the filter").click()
    page.wait_for_function(
        "[...document.querySelectorAll('.hit .camera')].every(e => e.innerText === 'door')"
    )
    narrow = hits_of(page, tmp_path)
    assert {hit["camera"] for hit in narrow} == {"door"}
    assert {hit["time"][:8] for hit in narrow} <= {"00:00:01", "00:00:02"}

    page.locator(".hit").first.click()
    frame = page.get_by_role("dialog")
    frame.wait_for()
    assert f"door, {narrow[0]['time']}" in frame.inner_text()
    assert page.evaluate("document.querySelector('.overlay img').naturalWidth") == 80
    page.keyboard.press("Escape")
    frame.wait_for(state="detached")


def test_a_scene_of_the_footage_and_a_drawn_box(page: Any, tmp_path: Path) -> None:
    page.get_by_role("tab", name="From the footage").click()
    page.get_by_label("Image or video").click()
    page.get_by_role("option", name="2.png").click()
    page.get_by_role("button", name="Show the scene").click()
    page.get_by_text("2.png:").wait_for()
    page.get_by_role("button", name="Draw a box").click()
    stage = page.locator(".stage")
    stage.scroll_into_view_if_needed()
    place = stage.bounding_box()
    page.mouse.move(place["x"] + 0.1 * place["width"], place["y"] + 0.1 * place["height"])
    page.mouse.down()
    page.mouse.move(place["x"] + 0.4 * place["width"], place["y"] + 0.8 * place["height"])
    page.mouse.up()
    page.locator(".hit").first.wait_for()
    # A search leaves the scene itself out.
    assert all(not hit["image"].endswith("/2.png") for hit in hits_of(page, tmp_path))


def test_wrong_files_are_refused(page: Any, tmp_path: Path) -> None:
    field, message = page.locator("input[type=file]"), page.locator(".refused")
    (tmp_path / "notes.txt").write_text("no image")
    field.set_input_files(tmp_path / "notes.txt")
    message.wait_for()
    assert message.inner_text() == "notes.txt is not an image of the kinds named above."
    (tmp_path / "large.png").write_bytes(bytes(50_001))
    field.set_input_files(tmp_path / "large.png")
    page.get_by_text("large.png is larger than 0.05 MB.").wait_for()
    # What the browser takes for an image by its name, the server does not.
    (tmp_path / "broken.png").write_text("no image")
    field.set_input_files(tmp_path / "broken.png")
    page.get_by_text("upload: this is no image of the kinds JPEG, PNG, BMP").wait_for()
    assert message.is_hidden()
    assert page.locator(".person").count() == 0
