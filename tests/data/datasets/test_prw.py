# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from kdps.data.datasets.prw import load_prw, load_prw_protocol
from kdps.utils.testing_layouts import TinyPRW


def boxes_of(record):
    return [(a["bbox"], a["person_id"]) for a in record["annotations"]]


def test_training_identities_are_renumbered_in_their_order(tmp_path):
    records = load_prw(TinyPRW().write(tmp_path / "set"), "train")
    assert [r["image_id"] for r in records] == [
        "c1s1_000001.jpg",
        "c2s1_000001.jpg",
        "c1s1_000002.jpg",
    ]
    # Identity 5 becomes 0 and 9 becomes 1, although 9 comes first.
    assert [[pid for _, pid in boxes_of(r)] for r in records] == [[1, -1], [0, 1], [0]]
    assert [r["cam_id"] for r in records] == [1, 2, 1]
    assert (records[0]["height"], records[0]["width"]) == (120, 160)


def test_test_identities_keep_their_numbers(tmp_path):
    records = load_prw(TinyPRW().write(tmp_path / "set"), "test")
    assert [[pid for _, pid in boxes_of(r)] for r in records] == [[20, -1], [20], [30], [30, 9]]
    assert [[q["query_id"] for q in r["queries"]] for r in records] == [[0], [], [], [1]]


def test_a_box_left_of_the_frame_as_annotation_and_as_query(tmp_path):
    # Row x = -4, w = 20: the annotation is cut before its width is added, the query after.
    tiny = TinyPRW()
    tiny.rows["c2s1_000012"] = [(30, -4, 30, 20, 50)]
    tiny.queries[1] = (30, -4, 30, 20, 50, "c2s1_000012")
    records = load_prw(tiny.write(tmp_path / "set"), "test")
    assert records[3]["annotations"][0]["bbox"] == [0, 30, 20, 80]
    assert records[3]["queries"][0]["bbox"] == [0, 30, 16, 80]


def test_fractions_are_cut_off_after_the_sum(tmp_path):
    tiny = TinyPRW()
    tiny.rows["c1s1_000011"] = [(20, 5.5, 5.75, 20.5, 50.5)]
    tiny.queries[0] = (20, 5.5, 5.75, 20.5, 50.5, "c1s1_000011")
    records = load_prw(tiny.write(tmp_path / "set"), "test")
    assert records[0]["annotations"][0]["bbox"] == [5, 5, 26, 56]
    assert records[0]["queries"][0]["bbox"] == [5, 5, 26, 56]


@pytest.mark.parametrize("variable", ["box_new", "anno_file", "anno_previous"])
def test_each_annotation_variable_is_read(tmp_path, variable):
    root = TinyPRW(box_variable=variable).write(tmp_path / "set")
    assert boxes_of(load_prw(root, "test")[1]) == [([40, 40, 70, 100], 20)]


def test_an_older_variable_beside_a_newer_one_is_ignored(tmp_path):
    root = TinyPRW(box_variable="anno_file").write(tmp_path / "set")
    path = root / "annotations" / "c2s1_000011.jpg.mat"
    older = loadmat(path)["anno_file"]
    savemat(path, {"anno_previous": older + 7, "anno_file": older + 3, "box_new": older})
    assert boxes_of(load_prw(root, "test")[1]) == [([40, 40, 70, 100], 20)]
    savemat(path, {"anno_previous": older + 7, "anno_file": older})
    assert boxes_of(load_prw(root, "test")[1]) == [([40, 40, 70, 100], 20)]


def test_a_frame_without_people(tmp_path):
    tiny = TinyPRW()
    tiny.rows["c1s1_000002"] = []
    assert load_prw(tiny.write(tmp_path / "set"), "train")[2]["annotations"] == []


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
def test_query_file_with_either_line_end(tmp_path, line_end):
    protocol = load_prw_protocol(TinyPRW(line_end=line_end).write(tmp_path / "set"))
    assert [q.image for q in protocol.queries] == ["c1s1_000011.jpg", "c2s1_000012.jpg"]
    assert [q.person_id for q in protocol.queries] == [20, 30]


def test_protocol_leaves_the_own_frame_out(tmp_path):
    protocol = load_prw_protocol(TinyPRW().write(tmp_path / "set"))
    first, second = protocol.galleries
    assert first.images is None
    assert first.excluded.tolist() == [0]
    assert first.truth_images.tolist() == [1]
    assert first.truth_boxes.tolist() == [[40, 40, 70, 100]]
    assert second.excluded.tolist() == [3]
    assert second.truth_images.tolist() == [2]
    assert protocol.cam_ids.tolist() == [1, 2, 1, 2]


def test_an_identity_twice_in_a_frame_counts_with_its_first_box(tmp_path):
    tiny = TinyPRW()
    tiny.rows["c2s1_000011"] = [(20, 90, 40, 20, 50), (20, 40, 40, 30, 60)]
    gallery = load_prw_protocol(tiny.write(tmp_path / "set")).galleries[0]
    assert gallery.truth_images.tolist() == [1]
    assert gallery.truth_boxes.tolist() == [[90, 40, 110, 90]]


def test_unlabelled_people_are_nobodys_truth(tmp_path):
    protocol = load_prw_protocol(TinyPRW().write(tmp_path / "set"))
    truths = np.concatenate([g.truth_images for g in protocol.galleries])
    assert len(truths) == 2
