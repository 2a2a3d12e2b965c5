# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from footage_recall import NOBODY, _parse, _row, label, of_video, read_truth

from kdps.footage.moments import Clock, Moment, parse_moment
from kdps.index.base import ModelIdentity
from kdps.index.faiss_index import FaissIndex

pytest.importorskip("faiss")
footage = pytest.importorskip("footage")


@pytest.fixture
def truth(tmp_path):
    """Person 7 in frames 1 to 21, moving right; person 8 in frame 11 only."""
    path = tmp_path / "gt.txt"
    rows = [f"{i},7,{10 * i},20,20,40,1,1,1" for i in range(1, 22)]
    path.write_text("\n".join([*rows, "11,8,300,20,20,40,1,1,1", "11,9,0,0,9,9,0,1,1"]) + "\n")
    return read_truth(path, 0.5)


def seen(*boxes):
    """Sightings a second apart with these boxes, all with embeddings of their own."""
    sightings = footage.make_sightings(len(boxes))
    rows = np.eye(8, dtype=np.float32)[: len(boxes)]
    return replace(sightings, boxes=np.array(boxes, dtype=np.float32), embeddings=rows)


def test_truth_is_scaled(truth):
    pids, boxes = truth[11]
    assert pids.tolist() == [7, 8]
    assert boxes.tolist() == [[55, 10, 65, 30], [150, 10, 160, 30]]


def test_whom_sightings_are_of(truth):
    # After 0, 1 and 2 seconds of 10 frames per second, which are frames 1, 11 and 21; after 3
    # seconds nobody is annotated.
    sightings = seen([5, 10, 15, 30], [150, 10, 160, 29], [112, 10, 122, 30], [5, 10, 15, 30])
    assert label(sightings, truth, 10).tolist() == [7, 8, NOBODY, NOBODY]


def test_recall_of_what_comes_later(truth):
    sightings = seen([5, 10, 15, 30], [55, 10, 65, 30], [105, 10, 115, 30], [0, 0, 9, 9])
    whom = label(sightings, truth, 10)
    assert whom.tolist() == [7, 7, 7, NOBODY]
    index = FaissIndex(ModelIdentity("a" * 64, 8))
    index.upsert(sightings)
    later = Moment(Clock.RECORDING, 1_000_000)
    # Nearest to the second sighting, then to the last, which is nobody's.
    query = np.array([0, 0.9, 0.1, 0.4, 0, 0, 0, 0], dtype=np.float32)
    (row,) = _row(index, query, 7, later, (sightings, whom), 2)
    # Two of the three that are searched are wanted, and one of the two hits.
    assert row == {"pid": 7, "recall": 0.5, "chance": pytest.approx(2 / 3), "first": 1.0}
    assert _row(index, query, 8, later, (sightings, whom), 2) == []


def test_other_footage_and_other_clocks_are_no_evidence():
    sightings = seen([5, 10, 15, 30])
    assert len(of_video(sightings, Path("/footage/a.mp4"))) == 1
    with pytest.raises(SystemExit, match="nothing of /footage/b.mp4"):
        of_video(sightings, Path("/footage/b.mp4"))
    dated = replace(sightings, clocks=np.full(1, Clock.DATE, dtype=np.int8))
    with pytest.raises(SystemExit, match="build it without --start"):
        of_video(dated, Path("/footage/a.mp4"))


def test_without_an_end_all_of_the_video_is_meant(monkeypatch):
    needed = ("config-file", "weights", "video", "index", "truth", "truth-rate")
    monkeypatch.setattr("sys.argv", ["footage_recall", *(f"--{name}=1" for name in needed)])
    args = _parse()
    assert parse_moment(args.start, "--from") == Moment(Clock.RECORDING, 0)
    assert parse_moment(args.end, "--to").microseconds >= 1000 * 3600 * 1_000_000
