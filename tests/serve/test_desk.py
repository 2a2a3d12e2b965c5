# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Scenes, persons and hits by number."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import pytest
from colour_desk import HEIGHT, LEFT, RIGHT, WIDTH, draw_scene

from kdps.errors import KdpsError
from kdps.serve.desk import SearchDesk, hit_of


def test_footage_is_listed_by_camera(desk: SearchDesk) -> None:
    assert desk.labels == ["gate.png", "yard.mkv"]
    assert desk.cameras == ["<b>gate</b>", "yard"]
    assert desk.footage_of(None) == [0, 1]
    assert desk.footage_of("yard") == [1]
    assert len(desk) == 6


def test_a_person_of_an_image_is_found_elsewhere(desk: SearchDesk) -> None:
    scene = desk.open_footage(0, "")
    assert [person.box for person in scene.persons] == [LEFT, RIGHT]
    hits = desk.find(desk.choose_person(scene, 0), [], "", "", 10)
    # Not in the image itself, and first the one of the same colour.
    assert {hit.camera for hit in hits} == {"yard"}
    assert hits[0].box == LEFT
    assert hits[0].similarity == pytest.approx(1, abs=1e-5)


def test_a_frame_of_a_video_and_the_filters(desk: SearchDesk) -> None:
    scene = desk.open_footage(1, "0:02")
    assert scene.title == "yard.mkv at 00:00:02.000"
    wanted = desk.choose_person(scene, 1)
    cameras = [hit.camera for hit in desk.find(wanted, [], "", "", 2)]
    assert set(cameras) == {"<b>gate</b>", "yard"}
    assert {hit.camera for hit in desk.find(wanted, ["yard"], "", "", 9)} == {"yard"}
    late = desk.find(wanted, [], "0:01", " 0:05 ", 9)
    assert {hit.frame for hit in late} == {3000}


def test_an_upload_with_a_drawn_box(desk: SearchDesk) -> None:
    content = cv2.imencode(".png", draw_scene())[1].tobytes()
    scene = desk.open_upload("data:image/png;base64," + base64.b64encode(content).decode())
    assert len(scene.persons) == 2
    x0, y0, x1, y1 = RIGHT
    shares = [x0 / WIDTH, y0 / HEIGHT, x1 / WIDTH, y1 / HEIGHT]
    hits = desk.find(desk.choose_box(scene, shares), [], "", "", 1)
    assert hits[0].box == RIGHT


@pytest.mark.parametrize("number", [-1, 2, True, 0.0, "0", None, [0], "/etc/passwd", {"path": "x"}])
def test_numbers_that_are_none_are_refused(desk: SearchDesk, number: object) -> None:
    scene = desk.open_footage(0, "")
    hits = desk.find(desk.choose_person(scene, 0), [], "", "", 2)
    for action in (
        lambda: desk.open_footage(number, ""),
        lambda: desk.choose_person(scene, number),
        lambda: hit_of(hits, number),
    ):
        with pytest.raises(KdpsError, match="choose one of those that are shown"):
            action()


@pytest.mark.parametrize(
    "shares", [None, [0, 0, 1], ["0", 0, 1, 1], [0, 0, float("nan"), 1], [0.5, 0.5, 0.5, 0.6]]
)
def test_boxes_that_are_none_are_refused(desk: SearchDesk, shares: object) -> None:
    with pytest.raises(KdpsError, match="box: it"):
        desk.choose_box(desk.open_footage(0, ""), shares)


def test_times_and_footage_that_are_none(desk: SearchDesk, footage: Path) -> None:
    for at in ("late", "2024-05-01", "0:10"):
        with pytest.raises(KdpsError):
            desk.open_footage(1, at)
    wanted = desk.choose_person(desk.open_footage(0, ""), 0)
    with pytest.raises(KdpsError, match="from: 'noon' is neither"):
        desk.find(wanted, [], "noon", "", 2)
    (footage / "gate.png").unlink()
    with pytest.raises(KdpsError, match="does not exist"):
        desk.open_footage(0, "")
