# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest

from kdps.data.datasets.mot import MOTOptions, load_mot, load_mot_protocol
from kdps.errors import KdpsError
from kdps.utils.testing_layouts import TinyMOT

# The tiny set has 2 frames per second, so frames up to 2 apart are near.
NEAR = MOTOptions(min_gap_seconds=1, queries_per_person=2)


def frames_of(records, sequence):
    names = [r["image_id"] for r in records]
    return [int(n[-10:-4]) for n in names if n.startswith(sequence)]


def test_split_in_time_leaves_a_gap(tmp_path):
    root = TinyMOT().write(tmp_path / "set")
    train, test = (load_mot(root, split, NEAR) for split in ("train", "test"))
    for sequence in ("cam-a", "cam-b"):
        assert frames_of(train, sequence) == list(range(1, 11))
        assert frames_of(test, sequence) == list(range(13, 21))
    assert {r["cam_id"] for r in test if r["image_id"].startswith("cam-b")} == {2}
    assert (test[0]["height"], test[0]["width"]) == (120, 160)
    assert test[0]["annotations"][0]["bbox"] == [5, 10, 25, 60]


def test_split_by_sequence(tmp_path):
    root = TinyMOT().write(tmp_path / "set")
    options = MOTOptions(train_sequences=("cam-b",))
    assert frames_of(load_mot(root, "train", options), "cam-b") == list(range(1, 21))
    assert frames_of(load_mot(root, "train", options), "cam-a") == []


def test_stride_takes_every_nth_image(tmp_path):
    root = TinyMOT().write(tmp_path / "set")
    records = load_mot(root, "train", MOTOptions(stride=4, train_sequences=("cam-a",)))
    assert frames_of(records, "cam-a") == [1, 5, 9, 13, 17]


@pytest.mark.parametrize(("shared", "count"), [(False, 4), (True, 3)])
def test_training_identities_are_contiguous(tmp_path, shared, count):
    root = TinyMOT().write(tmp_path / "set")
    records = load_mot(root, "train", MOTOptions(shared_ids=shared))
    pids = {a["person_id"] for r in records for a in r["annotations"]}
    assert pids == set(range(count))


def test_queries_and_galleries_of_separate_identities(tmp_path):
    protocol = load_mot_protocol(TinyMOT().write(tmp_path / "set"), NEAR)
    # Tracks of the second sequence are moved by 4, past the highest track.
    assert [q.person_id for q in protocol.queries] == [1, 1, 2, 2, 6, 6, 7, 7]
    # Eight test frames, two queries spread over them: the third and the seventh.
    assert protocol.queries[0].image == "cam-a/000015.jpg"
    assert protocol.queries[1].image == "cam-a/000019.jpg"
    first = protocol.galleries[0]
    assert [protocol.images[i] for i in first.excluded] == [
        f"cam-a/0000{n}.jpg" for n in (13, 14, 15, 16, 17)
    ]
    assert [protocol.images[i] for i in first.truth_images] == [
        f"cam-a/0000{n}.jpg" for n in (18, 19, 20)
    ]


def test_shared_identities_are_searched_across_cameras(tmp_path):
    options = MOTOptions(min_gap_seconds=1, queries_per_person=2, shared_ids=True)
    protocol = load_mot_protocol(TinyMOT().write(tmp_path / "set"), options)
    assert [q.person_id for q in protocol.queries] == [1, 1, 2, 2, 2, 2, 3, 3]
    # Frames 18 to 20 are far from frame 15, and 13 to 16 from frame 19; person 2 is in all 8 images
    # of the other camera as well.
    assert [len(g.truth_images) for g in protocol.galleries] == [3, 4, 11, 12, 11, 12, 3, 4]


def test_a_person_seen_only_close_in_time_is_no_query(tmp_path):
    tiny = TinyMOT()
    tiny.rows["cam-a"] += [(f, 9, 100, 10, 20, 50, 1, 1, 1) for f in (14, 15, 16)]
    protocol = load_mot_protocol(tiny.write(tmp_path / "set"), NEAR)
    assert 9 not in {q.person_id for q in protocol.queries}


def test_rows_that_are_not_evaluated_are_left_out(tmp_path):
    tiny = TinyMOT()
    tiny.rows["cam-a"] = [
        (1, 1, 10, 10, 20, 50, 1, 1, 1),
        (1, 2, 40, 10, 20, 50, 0, 1, 1),  # "do not evaluate"
        (1, 3, 70, 10, 20, 50, 1, 3, 1),  # a car
        (2, 1, 10, 10, 20, 50, 1, -1, -1, -1),  # MOT15: a position where later sets have a class
    ]
    records = load_mot(tiny.write(tmp_path / "set"), "train", MOTOptions(sequences=("cam-a",)))
    assert [len(r["annotations"]) for r in records[:3]] == [1, 1, 0]


def test_a_single_sequence_is_a_set(tmp_path):
    root = TinyMOT().write(tmp_path / "set")
    records = load_mot(root / "cam-a", "train", NEAR)
    assert records[0]["image_id"] == "000001.jpg"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride should be 1 or more"),
        ({"train_fraction": 1.0}, "train_fraction should be between 0 and 1"),
        ({"min_gap_seconds": -1}, "min_gap_seconds should not be negative"),
        ({"queries_per_person": 0}, "queries_per_person should be 1 or more"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(KdpsError, match=message):
        MOTOptions(**options)


def test_nobody_far_enough_apart(tmp_path):
    root = TinyMOT().write(tmp_path / "set")
    with pytest.raises(KdpsError, match="nobody appears twice more than 4 seconds apart"):
        load_mot_protocol(root, MOTOptions(min_gap_seconds=4))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,1,ten,10,20,50,1,1,1", r"gt\.txt, line 1: expected 'frame,id,x,y,width,height"),
        ("1,1,10,10", r"gt\.txt, line 1: expected"),
        ("1,1,nan,10,20,50,1,1,1", r"gt\.txt, line 1: a coordinate is no number"),
        ("1.5,1,10,10,20,50,1,1,1", r"gt\.txt, line 1: frame and id should be whole numbers"),
        ("1,2.7,10,10,20,50,1,1,1", r"gt\.txt, line 1: frame and id should be whole numbers"),
        ("1,-1,10,10,20,50,1,1,1", r"gt\.txt, line 1: unknown identity -1"),
        ("99,1,10,10,20,50,1,1,1", r"gt\.txt: frame 99 has no image"),
    ],
)
def test_damaged_rows(tmp_path, line, message):
    root = TinyMOT().write(tmp_path / "set")
    (root / "cam-b" / "gt" / "gt.txt").write_text(line + "\n")
    with pytest.raises(KdpsError, match=message):
        load_mot(root, "train")


def test_frame_rate_is_needed(tmp_path):
    root = TinyMOT().write(tmp_path / "set")
    (root / "cam-a" / "seqinfo.ini").write_text("[Sequence]\nimDir=img1\n")
    with pytest.raises(KdpsError, match=r"seqinfo\.ini: frameRate should be a positive number"):
        load_mot(root, "train")


def test_an_image_folder_that_is_a_file(tmp_path):
    root = TinyMOT().write(tmp_path / "set")
    (root / "cam-a" / "seqinfo.ini").write_text("[Sequence]\nframeRate=2\nimDir=gt/gt.txt\n")
    with pytest.raises(KdpsError, match=r"cannot read .*cam-a/gt/gt\.txt: Not a directory"):
        load_mot(root, "train")


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KdpsError, match=r"cannot read .*file: Not a directory"):
        load_mot(tmp_path / "file", "train")


def test_unknown_training_sequence(tmp_path):
    root = TinyMOT().write(tmp_path / "set")
    with pytest.raises(KdpsError, match="train_sequences names 'cam-c', which is not there"):
        load_mot(root, "train", MOTOptions(train_sequences=("cam-c",)))
