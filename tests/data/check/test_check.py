# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import math
from dataclasses import replace

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from kdps.data.catalog import register_person_search
from kdps.data.check import Level, Report, check_split
from kdps.data.check.people import box_fault, count_people, leaves_image
from kdps.data.check.published import check_counts, note_other_size
from kdps.data.datasets.layouts import PRW
from kdps.data.galleries import open_gallery_protocol
from kdps.data.protocol import Query
from kdps.data.records import make_annotation
from kdps.data.sources import SplitSource, source_of_name, source_of_root
from kdps.errors import KdpsError
from kdps.utils.testing_layouts import TinyPRW, write_images

IMAGE = {"height": 20, "width": 40}


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ((0, 0, 40, 20), None),
        ((-5, -5, 1, 1), None),
        ((39, 19, 60, 60), None),
        ((40, 0, 50, 10), "outside the 40x20 image"),
        ((0, 20, 10, 30), "outside the 40x20 image"),
        ((-9, 0, 0, 10), "outside the 40x20 image"),
        ((0, -9, 10, 0), "outside the 40x20 image"),
        ((5, 5, 5, 9), "has no area"),
        ((5, 9, 7, 8), "has no area"),
        ((5, math.nan, 7, 8), "no number"),
        ((5, 1, math.inf, 8), "no number"),
    ],
)
def test_box_fault(box, fault):
    found = box_fault(box, IMAGE)
    assert (found is None) if fault is None else fault in found


def test_an_unknown_size_bounds_nothing():
    assert box_fault((1000, 0, 1001, 1), {}) is None
    assert not leaves_image((0, 0, 1000, 1000), {})
    assert leaves_image((-1, 0, 5, 5), {})
    assert leaves_image((0, 0, 41, 5), IMAGE)
    assert not leaves_image((0, 0, 40, 20), IMAGE)


def test_count_people():
    records = [
        {"annotations": [make_annotation((0, 0, 1, 1), pid) for pid in pids]}
        for pids in ([3, -1, 4], [3, -1], [])
    ]
    assert count_people(records) == {"images": 3, "boxes": 5, "labelled boxes": 3, "identities": 2}


def test_published_counts():
    counts = {"images": 6112, "boxes": 25062, "labelled boxes": 19127, "identities": 544}
    report = Report()
    check_counts("prw_test", counts | {"queries": 2057}, report)
    check_counts("synth_prw_test", {"images": 5}, report)
    assert report.findings == []
    check_counts("prw_test", counts | {"queries": 2000, "images": 6111}, report)
    assert [str(finding) for finding in report.findings] == [
        "error: prw_test: 6111 images, the published set has 6112",
        "error: prw_test: 2000 queries, the published set has 2057",
    ]


def test_a_partial_copy_of_a_published_set_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    TinyPRW().write(tmp_path / "PRW")
    report = Report()
    counts = check_split(source_of_name("prw_train"), report)
    assert counts == {"images": 3, "boxes": 5, "labelled boxes": 4, "identities": 2}
    assert report.count(Level.ERROR) == 4


def test_a_folder_in_a_published_layout_is_told_from_the_published_set(tmp_path):
    root = TinyPRW().write(tmp_path / "set")
    report = Report()
    check_split(source_of_root(root, PRW, "train"), report)
    assert [str(finding) for finding in report.findings] == [
        "note: train: not the published size: 3 images (5704), 5 boxes (18048), "
        "4 labelled boxes (14907), 2 identities (483)"
    ]
    report = Report()
    note_other_size("test", "cuhk_sysu_test", {"images": 6978, "queries": 2900}, report)
    note_other_size("test", "mot_test", {"images": 3}, report)
    assert report.findings == []


def test_a_users_own_registered_set(tmp_path):
    write_images(tmp_path, {"a.jpg", "b.jpg"})
    records = [
        {
            "file_name": str(tmp_path / f"{name}.jpg"),
            "image_id": name,
            "cam_id": 0,
            "annotations": [make_annotation((5, 5, 50, 90), 1)],
        }
        for name in "ab"
    ]
    queries = [Query("a", (5, 5, 50, 90), 1), Query("b", (5, 5, 50, 900), 2)]
    protocol = open_gallery_protocol("own", records, queries)
    register_person_search("own_test", lambda: records, lambda size: protocol)
    try:
        report = Report()
        counts = check_split(source_of_name("own_test"), report)
        assert counts["queries"] == 2
        assert [str(f) for f in report.findings] == [
            "error: own, query 1: unknown identity 2: no box of the set has it",
            "warning: 1 query boxes reach out of their image (first: own, query 1)",
        ]
    finally:
        DatasetCatalog.remove("own_test")
        MetadataCatalog.remove("own_test")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"images": ("b", "a")}, "own: its images are not those of the records in their order"),
        (
            {"queries": (Query("c", (5, 5, 50, 90), 1),)},
            "own, query 0: image 'c' is not in the test set",
        ),
    ],
)
def test_a_protocol_that_does_not_fit_its_records(tmp_path, change, line):
    write_images(tmp_path, {"a.jpg", "b.jpg"})
    people = [make_annotation((5, 5, 50, 90), 1)]
    records = [
        {"file_name": f"{tmp_path}/{n}.jpg", "image_id": n, "cam_id": 0, "annotations": people}
        for n in "ab"
    ]
    protocol = open_gallery_protocol("own", records, [Query("a", (5, 5, 50, 90), 1)])
    source = SplitSource("own", lambda: records, lambda size: replace(protocol, **change))
    report = Report()
    check_split(source, report)
    assert [str(finding) for finding in report.findings] == [f"error: {line}"]


def test_unknown_name():
    with pytest.raises(KdpsError, match="unknown data set 'prv_test'; known are .*prw_test"):
        source_of_name("prv_test")
