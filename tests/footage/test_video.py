# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from footage import grey_frames, write_video

from kdps.errors import KdpsError
from kdps.footage.video import VideoFrame, VideoReader

# Uneven: a camera that drops frames. In milliseconds.
STAMPS = [0, 40, 90, 480, 530, 900, 1010, 1490, 1530, 2400, 2450, 2800]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "uneven.mkv"
    write_video(path, grey_frames(len(STAMPS)), STAMPS, 1000)
    return path


def numbers(frames: list) -> list[int]:
    """Which frames these are, by their brightness."""
    return [round(float(frame.image.mean()) / 8) for frame in frames]


def test_time_stamps_are_exact(video: Path) -> None:
    frames = list(VideoReader(video).frames())
    assert [frame.microseconds for frame in frames] == [1000 * stamp for stamp in STAMPS]
    assert numbers(frames) == list(range(len(STAMPS)))


def test_the_first_frame_of_each_span_is_taken(video: Path) -> None:
    # Spans of half a second begin at 0, 500, 1000, 1500, 2000 (empty) and 2500.
    assert numbers(list(VideoReader(video).frames(2.0))) == [0, 4, 6, 8, 9, 11]
    assert numbers(list(VideoReader(video).frames(0.5))) == [0, 9]


def test_going_on_takes_the_same_frames(video: Path) -> None:
    whole = [(f.stamp, f.microseconds) for f in VideoReader(video).frames(2.0)]
    for done, (stamp, _) in enumerate(whole, 1):
        rest = [(f.stamp, f.microseconds) for f in VideoReader(video).frames(2.0, stamp)]
        assert rest == whole[done:]


def test_single_frames(video: Path) -> None:
    reader = VideoReader(video)
    for number, frame in enumerate(reader.frames()):
        assert numbers([reader.frame_at(frame.stamp)]) == [number]
    assert numbers([reader.frame_after(1_490_001)]) == [8]
    with pytest.raises(KdpsError, match="no frame at or after"):
        reader.frame_after(60_000_000)
    assert reader.seconds() == pytest.approx(2.8, abs=0.2)
    assert reader.seconds(after=2400) == pytest.approx(0.4, abs=0.2)
    assert reader.seconds(after=9000) == 0


@pytest.fixture(
    scope="module",
    params=[
        ("a.mkv", "libx264"),
        ("a.mp4", "libx264"),
        ("a.ts", "libx264"),
        ("a.ts", "mpeg2video"),
        ("a.mpg", "mpeg2video"),
        ("a.avi", "mpeg4"),
    ],
    ids="-".join,
)
def reordered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two and a half seconds with frames that are predicted from later ones."""
    name, codec = request.param
    path = tmp_path_factory.mktemp("reordered") / name
    frames = [np.full((64, 80, 3), 4 * i, dtype=np.uint8) for i in range(60)]
    write_video(path, frames, range(60), 25, codec, b_frames=2)
    return path


def assert_same(frames: Sequence[VideoFrame], expected: Sequence[VideoFrame]) -> None:
    assert [frame.stamp for frame in frames] == [frame.stamp for frame in expected]
    for frame, other in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.image, other.image)


def test_each_frame_is_found_by_its_stamp_in_any_container(reordered: Path) -> None:
    reader = VideoReader(reordered)
    whole = list(reader.frames())
    assert len(whole) == 60
    for frame in whole:
        assert_same([reader.frame_at(frame.stamp)], [frame])
        assert_same([reader.frame_after(frame.microseconds)], [frame])
    assert reader.fault == ""


@pytest.mark.parametrize("rate", [None, 4.0])
def test_going_on_takes_the_same_frames_in_any_container(
    reordered: Path, rate: float | None
) -> None:
    whole = list(VideoReader(reordered).frames(rate))
    for done, frame in enumerate(whole, 1):
        assert_same(list(VideoReader(reordered).frames(rate, frame.stamp)), whole[done:])


def test_a_recording_that_was_joined_is_read_up_to_where_time_jumps_back(tmp_path: Path) -> None:
    write_video(tmp_path / "a.ts", grey_frames(30), range(30), 25, "mpeg2video")
    once = (tmp_path / "a.ts").read_bytes()
    (tmp_path / "joined.ts").write_bytes(once + once)
    reader = VideoReader(tmp_path / "joined.ts")
    assert numbers(list(reader.frames())) == list(range(30))
    assert reader.fault == (
        "reading ended before the end (time stamps jump back after 00:00:01.160)"
    )


def test_time_counts_from_the_first_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "late.mkv", grey_frames(3), [5000, 5500, 6000], 1000)
    frames = list(VideoReader(tmp_path / "late.mkv").frames())
    assert [frame.microseconds for frame in frames] == [0, 500_000, 1_000_000]


def test_a_video_that_was_cut_off_is_read_as_far_as_it_goes(video: Path, tmp_path: Path) -> None:
    data = video.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 2 // 3])
    frames = list(VideoReader(tmp_path / "cut.mkv").frames())
    assert 0 < len(frames) < len(STAMPS)
    assert numbers(frames) == list(range(len(frames)))


def test_damaged_packets_are_left_out_and_told(video: Path, tmp_path: Path) -> None:
    with av.open(str(video)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data = video.read_bytes()
    # The second key frame begins a group of five.
    damaged = data.replace(packets[5], bytes(len(packets[5])))
    assert damaged != data
    (tmp_path / "damaged.mkv").write_bytes(damaged)
    reader = VideoReader(tmp_path / "damaged.mkv")
    frames = list(reader.frames())
    assert numbers(frames)[:5] == [0, 1, 2, 3, 4]
    assert reader.fault == "1 damaged packets left out"


@pytest.mark.parametrize("content", [b"", b"not a video", b"\x00\x00\x00\x20ftypisom" + bytes(99)])
def test_what_is_no_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    for use in (VideoReader.seconds, lambda reader: list(reader.frames())):
        with pytest.raises(KdpsError, match=r"video .*a\.mp4 cannot be read: ") as error:
            use(VideoReader(tmp_path / "a.mp4"))
        assert "\n" not in str(error.value)


def test_without_pyav(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(KdpsError, match="av, which is not installed: .* extra 'video'"):
        VideoReader(tmp_path / "a.mp4")
