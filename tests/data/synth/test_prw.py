# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.io import loadmat

from kdps.data.datasets.prw import load_prw, load_prw_protocol
from kdps.data.synth import generate
from kdps.errors import KdpsError


@pytest.fixture(scope="module")
def queries(prw_root):
    text = (prw_root / "query_info.txt").read_bytes().decode()
    assert text.count("\r\n") == text.count("\n")
    return [line.split() for line in text.splitlines()]


def test_frames_and_their_annotations(prw_root):
    frames = {path.stem for path in (prw_root / "frames").iterdir()}
    assert len(frames) == 66
    assert {path.name for path in (prw_root / "annotations").iterdir()} == {
        f"{frame}.jpg.mat" for frame in frames
    }
    listed = {
        split: [c[0][0] for c in loadmat(prw_root / f"frame_{split}.mat")[f"img_index_{split}"]]
        for split in ("train", "test")
    }
    assert (len(listed["train"]), len(listed["test"])) == (6, 60)
    assert set(listed["train"]) | set(listed["test"]) == frames
    # a place is a sequence: none has frames of both splits
    places = [{frame.split("_")[0] for frame in listed[split]} for split in listed]
    assert places[0].isdisjoint(places[1])


def test_rows_are_doubles_with_known_ids(prw_root, small):
    ids = set()
    for path in (prw_root / "annotations").iterdir():
        rows = loadmat(path)["box_new"]
        assert rows.dtype == np.float64
        assert rows.shape[1] == 5
        ids |= set(rows[:, 0].astype(int).tolist())
    assert ids == {-2, *range(1, small.train_ids + small.test_ids + 1)}
    assert loadmat(prw_root / "ID_train.mat")["ID_train"].tolist() == [list(range(1, 7))]
    assert loadmat(prw_root / "ID_test.mat")["ID_test2"].tolist() == [list(range(7, 19))]


def test_queries_are_annotated_boxes_of_people_seen_by_another_camera(prw_root, queries):
    cameras = {}
    for path in (prw_root / "annotations").iterdir():
        for row in loadmat(path)["box_new"].astype(int):
            cameras.setdefault(row[0], set()).add(path.name[:2])
    for pid, *box, frame in queries:
        rows = loadmat(prw_root / "annotations" / f"{frame}.jpg.mat")["box_new"].astype(int)
        assert [int(pid), *map(int, box)] in rows.tolist()
        assert len(cameras[int(pid)]) > 1
    assert len({(pid, frame[:2]) for pid, *_, frame in queries}) == len(queries) > 12


def test_query_crops(prw_root, queries):
    assert len(list((prw_root / "query_box").iterdir())) == len(queries)
    pid, _, _, w, h, frame = queries[0]
    crop = cv2.imread(str(prw_root / "query_box" / f"{pid}_{frame}.jpg"))
    assert crop.shape == (int(h), int(w), 3)


def test_the_loader_reads_what_was_drawn(prw_root, queries, small):
    train, test = (load_prw(prw_root, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (6, 60)
    assert {record["cam_id"] for record in test} == {1, 2}
    labels = {a["person_id"] for record in train for a in record["annotations"]}
    assert labels == {-1, *range(small.train_ids)}
    protocol = load_prw_protocol(prw_root)
    assert len(protocol.queries) == len(queries)
    assert all(len(gallery.truth_images) >= 1 for gallery in protocol.galleries)


def test_fewer_queries_on_request(tmp_path, small):
    config = replace(small, queries=4, test_images=20, train_images=4, train_ids=3)
    root = generate(config, tmp_path / "set", "prw").root
    assert len(load_prw_protocol(root).queries) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": 1}, "cameras=1"),
        ({"cameras": 10}, "cameras=10"),
        ({"queries": 25}, "queries=25 but test_ids=12 in cameras=2 give at most 24"),
    ],
)
def test_impossible_settings_fail_before_anything_is_drawn(tmp_path, small, changes, message):
    with pytest.raises(KdpsError, match=message):
        generate(replace(small, **changes), tmp_path / "set", "prw")
    assert not list(tmp_path.iterdir())
