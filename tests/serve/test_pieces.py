# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The HTML of scenes, hits and frames."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from pathlib import Path

import pytest
from colour_desk import LEFT

from kdps.errors import KdpsError
from kdps.serve.desk import SearchDesk
from kdps.serve.pieces import frame_html, hits_html, scene_html


def test_persons_are_buttons_in_their_places(desk: SearchDesk) -> None:
    text = scene_html(desk.open_footage(0, ""))
    assert re.findall(r'data-person="(\d)"', text) == ["0", "1"]
    assert "left: 5.0%; top: 13.333%; width: 20.0%; height: 80.0%" in text
    assert text.count("data:image/jpeg;base64,") == 1


def test_hits_escape_names_and_carry_their_list(desk: SearchDesk) -> None:
    wanted = desk.choose_person(desk.open_footage(1, ""), 0)
    hits = desk.find(wanted, [], "", "", 9)
    text = hits_html(hits, len(desk))
    # Cameras are named by folders, and those may be named anything.
    assert "&lt;b&gt;gate&lt;/b&gt;" in text
    assert "<b>gate" not in text
    lists = {
        kind: base64.b64decode(content).decode()
        for kind, content in re.findall(r'href="data:(?:\w+)/(\w+);base64,([^"]+)"', text)
    }
    rows = json.loads(lists["json"])
    assert [row["rank"] for row in rows] == list(range(1, len(hits) + 1))
    assert rows[0]["bbox"] == list(LEFT)
    assert {row["camera"] for row in rows} == {"<b>gate</b>", "yard"}
    table = list(csv.DictReader(io.StringIO(lists["csv"])))
    assert [float(row["similarity"]) for row in table] == [row["similarity"] for row in rows]
    assert float(table[0]["x1"]) == LEFT[2]


def test_nobody_is_said(desk: SearchDesk) -> None:
    assert "Nobody was found" in hits_html([], len(desk))


def test_the_frame_of_a_hit(desk: SearchDesk, footage: Path) -> None:
    wanted = desk.choose_person(desk.open_footage(0, ""), 0)
    (hit,) = desk.find(wanted, ["yard"], "0:03", "", 1)
    text = frame_html(1, hit)
    assert "yard, 00:00:03.000" in text
    assert "left: 5.0%" in text
    # Where files lie is nobody's business on the page itself.
    assert str(footage) not in text
    (footage / "yard.mkv").unlink()
    with pytest.raises(KdpsError):
        frame_html(1, hit)
