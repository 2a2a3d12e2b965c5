# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from detectron2.structures import BoxMode
from PIL import Image

from kdps.data.records import make_annotation
from kdps.data.show import choose_records, draw_record, identity_color
from kdps.errors import KdpsError


def make_record(path, *pids):
    boxes = [(40 + 300 * i, 100, 240 + 300 * i, 600) for i in range(len(pids))]
    people = [make_annotation(box, pid) for box, pid in zip(boxes, pids, strict=True)]
    return {"file_name": str(path), "image_id": path.name, "annotations": people}


def test_boxes_have_the_colour_of_the_identity(tmp_path):
    Image.new("RGB", (1600, 800)).save(tmp_path / "a.png")
    record = make_record(tmp_path / "a.png", 3, -1)
    drawn = draw_record(record).get_image()
    assert drawn.shape == (800, 1600, 3)
    for x, pid in ((40, 3), (340, -1)):
        edge = drawn[300, x - 3 : x + 4].astype(float)
        expected = 255 * np.array(identity_color(pid))
        assert np.abs(edge - expected).sum(axis=1).min() < 40
    assert (drawn[300:500, 700:] == 0).all()


def test_queries_are_drawn_too(tmp_path):
    Image.new("RGB", (1600, 800)).save(tmp_path / "a.png")
    record = make_record(tmp_path / "a.png")
    box = [900, 100, 1100, 600]
    record["queries"] = [{"query_id": 5, "bbox": box, "bbox_mode": BoxMode.XYXY_ABS}]
    drawn = draw_record(record).get_image()
    assert (drawn[100:600, 895:905].max(axis=(1, 2)) > 200).mean() > 0.4
    assert (drawn[:, :800] == 0).all()


def test_small_images_are_enlarged(tmp_path):
    Image.new("RGB", (160, 80)).save(tmp_path / "a.png")
    assert draw_record(make_record(tmp_path / "a.png")).get_image().shape == (800, 1600, 3)


def test_drawing_leaves_the_file_as_it_is(tmp_path):
    Image.new("RGB", (160, 80)).save(tmp_path / "a.png")
    draw_record(make_record(tmp_path / "a.png", 1))
    assert (read_image(str(tmp_path / "a.png")) == 0).all()


def test_identities_near_each_other_differ():
    colors = np.array([identity_color(pid) for pid in range(20)])
    assert np.abs(np.diff(colors, axis=0)).max(axis=1).min() > 0.3


def test_choice_spreads_over_the_split(tmp_path):
    records = [make_record(tmp_path / f"{i}", i % 3) for i in range(10)]
    assert [r["image_id"] for r in choose_records(records, 4)] == ["0", "3", "6", "9"]
    assert len(choose_records(records, 99)) == 10
    assert [r["image_id"] for r in choose_records(records, 9, person=1)] == ["1", "4", "7"]
    with pytest.raises(KdpsError, match="identity 7 is in no image of the set"):
        choose_records(records, 1, person=7)


def test_missing_image(tmp_path):
    with pytest.raises(KdpsError, match=r"image .*a\.png does not exist"):
        draw_record(make_record(tmp_path / "a.png"))
