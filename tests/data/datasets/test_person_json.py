# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json

import pytest

from kdps.data.datasets.person_json import load_person_json, load_person_json_protocol
from kdps.errors import KdpsError
from kdps.utils.testing_layouts import tiny_json, write_json


def test_records(tmp_path):
    path = write_json(tmp_path, tiny_json())
    records = load_person_json(path, tmp_path, "test")
    assert [r["image_id"] for r in records] == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert [r["cam_id"] for r in records] == [1, 0, 1, 0]
    people = [[(a["bbox"], a["person_id"]) for a in r["annotations"]] for r in records]
    assert people[0] == [([10, 10, 30, 60], 7), ([60, 20, 80, 70], -1)]
    assert people[3] == []
    train = load_person_json(path, tmp_path, "train")
    assert [a["person_id"] for a in train[1]["annotations"]] == [0, 1]
    assert "queries" not in train[0]


def test_queries_by_rule_are_the_first_box_in_each_camera(tmp_path):
    protocol = load_person_json_protocol(write_json(tmp_path, tiny_json()))
    asked = [(q.person_id, q.image) for q in protocol.queries]
    assert asked == [(7, "2.jpg"), (7, "1.jpg"), (8, "2.jpg"), (8, "3.jpg")]
    assert [g.truth_images.tolist() for g in protocol.galleries] == [[0], [1], [2], [1]]
    assert [g.excluded.tolist() for g in protocol.galleries] == [[1], [0], [1], [2]]


def test_a_person_in_one_image_is_no_query(tmp_path):
    content = tiny_json()
    del content["annotations"][4]
    protocol = load_person_json_protocol(write_json(tmp_path, content))
    assert {q.person_id for q in protocol.queries} == {7}


def test_explicit_queries(tmp_path):
    content = tiny_json()
    content["queries"] = [{"image_id": 3, "bbox": [15, 25, 20, 50], "person_id": 8}]
    path = write_json(tmp_path, content)
    protocol = load_person_json_protocol(path)
    assert protocol.queries[0].bbox == (15, 25, 35, 75)
    assert protocol.galleries[0].truth_images.tolist() == [1]
    assert load_person_json(path, tmp_path, "test")[2]["queries"][0]["query_id"] == 0


def test_crowds_and_other_categories_are_left_out(tmp_path):
    content = tiny_json()
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"][1]["category_id"] = 2
    records = load_person_json(write_json(tmp_path, content), tmp_path, "train")
    assert records[0]["annotations"] == []


def test_a_file_without_categories_is_all_people(tmp_path):
    content = tiny_json()
    del content["categories"]
    content["annotations"][1]["category_id"] = 2
    records = load_person_json(write_json(tmp_path, content), tmp_path, "train")
    assert len(records[0]["annotations"]) == 2


def test_the_only_category_is_the_person_whatever_its_name(tmp_path):
    content = tiny_json()
    content["categories"] = [{"id": 1, "name": "pedestrian"}]
    content["annotations"][1]["category_id"] = 2
    records = load_person_json(write_json(tmp_path, content), tmp_path, "train")
    assert len(records[0]["annotations"]) == 1


def test_a_recorded_size_has_to_be_the_images(tmp_path):
    content = tiny_json()
    content["images"][2]["height"] = 121
    path = write_json(tmp_path, content)
    message = r"people\.json: image .*3\.jpg is 160x120, its record says 160x121"
    with pytest.raises(KdpsError, match=message):
        load_person_json(path, tmp_path, "train")


def spoil(**changes):
    def apply(content):
        for where, value in changes.items():
            content["annotations"][2][where] = value

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("images"), "has no list 'images'"),
        (spoil(image_id=77), r"annotations\[2\]: image_id 77 is not among the images"),
        (spoil(person_id="x"), r"annotations\[2\]: person_id should be a whole number, it is 'x'"),
        (spoil(person_id=float("nan")), r"annotations\[2\]: person_id should be a whole number"),
        (spoil(person_id=float("inf")), r"annotations\[2\]: person_id should be a whole number"),
        (spoil(person_id=1.5), r"annotations\[2\]: person_id should be a whole number"),
        (spoil(image_id=[1]), r"annotations\[2\]: image_id should be a number or a text"),
        (spoil(category_id=None), r"annotations\[2\] has no 'category_id'"),
        (lambda c: c.update(categories=[3]), r"categories\[0\] has no 'name'"),
        (lambda c: c.update(categories=3), "categories should be a list"),
        (lambda c: c.update(queries=3), "queries should be a list"),
        (
            lambda c: c.update(categories=[{"id": 1, "name": "man"}, {"id": 2, "name": "car"}]),
            r"people\.json: none of several categories is 'person'; they are man, car",
        ),
        (spoil(person_id=-5), r"annotations\[2\]: unknown identity -5"),
        (spoil(bbox=[1, 2, 3]), r"annotations\[2\]: bbox should hold x, y, width, height"),
        (spoil(bbox=[1, 2, 3, float("nan")]), r"annotations\[2\]: bbox holds a value that is no"),
        (spoil(bbox=None), r"annotations\[2\] has no 'bbox'"),
        (lambda c: c["images"][1].pop("file_name"), r"images\[1\] has no 'file_name'"),
        (lambda c: c["images"][1].update(id=1), r"images\[1\]: id 1 stands for another image"),
        (lambda c: c["images"][1].update(file_name="1.jpg"), "lists image '1.jpg' 2 times"),
        (
            lambda c: c.update(queries=[{"image_id": 9, "bbox": [1, 2, 3, 4], "person_id": 7}]),
            r"queries\[0\]: image_id 9 is not among the images",
        ),
        (lambda c: c.update(queries=[]), "has no queries"),
    ],
)
def test_damaged_entries(tmp_path, change, message):
    content = tiny_json()
    path = write_json(tmp_path, content)
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(KdpsError, match=message):
        load_person_json(path, tmp_path, "test", image_sizes=False)


def test_truncated_file(tmp_path):
    path = write_json(tmp_path, tiny_json())
    path.write_text(path.read_text()[:100])
    with pytest.raises(KdpsError, match=r"people\.json is truncated or no JSON") as caught:
        load_person_json(path, tmp_path, "train")
    assert "\n" not in str(caught.value)
