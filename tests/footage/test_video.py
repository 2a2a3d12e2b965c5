# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import pytest
from footage import grey_frames, write_video

from kdps.errors import KdpsError
from kdps.footage.moments import Clock, Moment, parse_moment
from kdps.footage.video import VideoFrame, VideoReader

# Uneven: a camera that drops frames. In milliseconds.
STAMPS = [0, 40, 90, 480, 530, 900, 1010, 1490, 1530, 2400, 2450, 2800]
# Kinds of files that differ in how they are sought in; VP9 has no B-frames.
CONTAINERS = [
    ("a.mkv", "libx264", 2),
    ("a.mp4", "libx264", 2),
    ("a.webm", "libvpx-vp9", 0),
    ("a.wmv", "wmv2", 0),
    ("a.wmv", "libx264", 0),
    ("a.avi", "mpeg4", 2),
    ("a.ts", "libx264", 2),
    ("a.ts", "mpeg2video", 2),
    ("a.mpg", "mpeg2video", 2),
]
COUNT = 40


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "uneven.mkv"
    write_video(path, grey_frames(len(STAMPS)), STAMPS, 1000)
    return path


def write_even(path: Path, codec: str, between: int, count: int = COUNT, first: int = 0) -> None:
    """25 frames per second, a key picture every 12: a square that goes over a patterned ground."""
    ground = np.random.default_rng(0).integers(0, 100, (64, 80, 3), dtype=np.uint8)
    images = [ground.copy() for _ in range(count)]
    for number, image in enumerate(images, first):
        image[number % 56 :, number % 72 :][:8, :8] = 255
    write_video(path, images, range(count), 25, codec, 12, between)


def seen(frames: Iterable[VideoFrame]) -> list[tuple[int, int, bytes]]:
    """All that there is to frames, so that two readings can be compared."""
    return [(frame.stamp, frame.microseconds, frame.image.tobytes()) for frame in frames]


def check_seeking(path: Path, count: int = COUNT) -> None:
    """Whatever is read from somewhere on is as in a reading of all."""
    whole = seen(VideoReader(path).frames())
    assert len(whole) == count
    for done, (stamp, microseconds, _) in enumerate(whole, 1):
        expected = whole[done - 1]
        assert seen([VideoReader(path).frame_at(stamp)]) == [expected]
        assert seen([VideoReader(path).frame_after(microseconds)]) == [expected]
        assert seen(VideoReader(path).frames(after=stamp)) == whole[done:]


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


@pytest.mark.parametrize(("name", "codec", "between"), CONTAINERS)
def test_each_container_is_read_from_any_frame_on(
    tmp_path: Path, name: str, codec: str, between: int
) -> None:
    write_even(tmp_path / name, codec, between)
    check_seeking(tmp_path / name)
    reader = VideoReader(tmp_path / name)
    last = list(reader.frames())[-1].stamp
    assert seen(reader.frames(after=last)) == []
    assert reader.fault == ""


@pytest.mark.parametrize(
    ("name", "codec", "unsure"),
    [
        ("a.ts", "libx264", 0),
        ("a.mkv", "libx264", 0),
        # FFmpeg has to guess some time stamps, and takes the joint one picture too early or late.
        ("a.mpg", "mpeg2video", 1),
    ],
)
def test_joined_recordings_end_where_the_second_begins(
    tmp_path: Path, name: str, codec: str, unsure: int
) -> None:
    write_even(tmp_path / name, codec, 2)
    # Longer than the first, so that its time stamps go on where those of the first end.
    write_even(tmp_path / f"next_{name}", codec, 2, count=60, first=3)
    joined = tmp_path / f"joined_{name}"
    joined.write_bytes((tmp_path / name).read_bytes() + (tmp_path / f"next_{name}").read_bytes())
    reader = VideoReader(joined)
    whole = seen(reader.frames())
    alone = seen(VideoReader(tmp_path / name).frames())
    assert whole[: COUNT - unsure] == alone[: COUNT - unsure]
    assert abs(len(whole) - COUNT) <= unsure
    assert re.search(r"\(time stamps jump back after 00:00:01\.\d+\)$", reader.fault)
    check_seeking(joined, len(whole))
    with pytest.raises(KdpsError, match="no frame at or after"):
        VideoReader(joined).frame_after(2_000_000)


def test_a_camera_that_began_anew_goes_back_in_time(tmp_path: Path) -> None:
    # The times of .ts files come around after 26.5 hours; these do not.
    write_video(tmp_path / "late.ts", grey_frames(20), range(25_000, 25_020), 25)
    write_video(tmp_path / "early.ts", grey_frames(20), range(20), 25)
    parts = [(tmp_path / name).read_bytes() for name in ("late.ts", "early.ts")]
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    reader = VideoReader(tmp_path / "joined.ts")
    assert len(list(reader.frames())) == 20
    assert re.search(r"\(time stamps jump back after 00:00:00\.\d+\)$", reader.fault)


def test_frames_out_of_order_are_left_out_and_told(tmp_path: Path) -> None:
    write_even(tmp_path / "a.ts", "libx264", 2)
    write_even(tmp_path / "short.ts", "libx264", 2, count=10, first=3)
    short = (tmp_path / "short.ts").read_bytes()
    (tmp_path / "joined.ts").write_bytes(2 * short + (tmp_path / "a.ts").read_bytes())
    reader = VideoReader(tmp_path / "joined.ts")
    whole = seen(reader.frames())
    assert whole[:10] == seen(VideoReader(tmp_path / "short.ts").frames())
    assert whole[10:] == seen(VideoReader(tmp_path / "a.ts").frames())[10:]
    assert reader.fault == "20 frames out of order left out"
    check_seeking(tmp_path / "joined.ts")


def test_a_time_that_is_shown_finds_its_frame(tmp_path: Path) -> None:
    # At 30 frames per second two of three time stamps are no whole number of microseconds.
    write_video(tmp_path / "a.mp4", grey_frames(30), range(30), 30)
    for frame in VideoReader(tmp_path / "a.mp4").frames():
        shown = str(Moment(Clock.RECORDING, frame.microseconds))
        found = VideoReader(tmp_path / "a.mp4").frame_after(parse_moment(shown, "at").microseconds)
        assert found.stamp == frame.stamp


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


def test_a_damaged_key_frame_on_the_way_is_told_once(tmp_path: Path) -> None:
    write_even(tmp_path / "a.mkv", "mpeg4", 0)
    with av.open(str(tmp_path / "a.mkv")) as container:
        keys = [bytes(p) for p in container.demux(video=0) if p.size and p.is_keyframe]
    assert len(keys) == 4
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(data.replace(keys[2], bytes(len(keys[2]))))
    whole = seen(VideoReader(tmp_path / "a.mkv").frames())
    stamps = [stamp for stamp, _, _ in whole]
    # In the damaged group, whose key frame is of no use.
    done = stamps.index(27 * 40) + 1
    reader = VideoReader(tmp_path / "a.mkv")
    assert seen(reader.frames(after=stamps[done - 1])) == whole[done:]
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
