# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from kdps.errors import KdpsError
from kdps.footage.moments import Clock, parse_moment
from kdps.footage.sources import find_sources, share_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    for name in ("door.mp4", "1.jpg", "yard/2.PNG", "yard/day 1/b.avi", "yard/notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_folders_are_cameras(folder: Path) -> None:
    found = {s.path.relative_to(folder).as_posix(): s.camera for s in find_sources(folder)}
    assert found == {
        "1.jpg": "shop",
        "door.mp4": "door",
        "yard/2.PNG": "yard",
        "yard/day 1/b.avi": "yard/day 1",
    }


def test_options_name_camera_and_time(folder: Path) -> None:
    start = parse_moment("2024-05-01", "--start")
    sources = find_sources(folder / "door.mp4", "gate", start)
    assert [(s.camera, s.moment) for s in sources] == [("gate", start)]
    assert find_sources(folder / "yard" / "2.PNG")[0].camera == "yard"


def test_lists(folder: Path) -> None:
    table = folder / "list.csv"
    table.write_text("path,camera,time\ndoor.mp4,front,2024-05-01T10:00:00\n1.jpg,,\n")
    door, one = find_sources(table, start=parse_moment("2024-01-01", "--start"))
    assert (door.camera, str(door.moment)) == ("front", "2024-05-01T10:00:00.000")
    assert (one.camera, str(one.moment)) == ("shop", "2024-01-01T00:00:00.000")
    (folder / "list.txt").write_text("door.mp4\n\nyard/2.PNG\n")
    sources = find_sources(folder / "list.txt")
    assert [s.camera for s in sources] == ["door", "yard"]
    assert sources[0].moment.clock is Clock.NONE
    assert sources[0].begin.clock is Clock.RECORDING


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "file,camera\na,b\n", "l.csv: its first line has to name .* 'file,camera'"),
        ("l.csv", "path,zone\na,b\n", "l.csv: its first line has to name"),
        ("l.csv", "path\nnone.jpg\n", "l.csv: path: 'none.jpg' does not exist"),
        ("l.csv", "path,time\n1.jpg,noon\n", "l.csv: time: 'noon' is neither a date"),
        ("l.txt", "1.jpg\n./1.jpg\n", "l.txt: path: './1.jpg' is there twice"),
        ("l.txt", "yard/notes.txt\n", "notes.txt: is neither an image nor a video"),
        ("l.txt", "\n", "--input: .*l.txt holds no image or video"),
        ("l.txt", "\xff", "l.txt: "),
    ],
)
def test_faults_of_lists(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(KdpsError, match=message):
        find_sources(folder / name)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(KdpsError, match="--input: .*none does not exist"):
        find_sources(tmp_path / "none")
    with pytest.raises(KdpsError, match="holds no image or video"):
        find_sources(tmp_path)


def test_links_are_followed(folder: Path, tmp_path: Path) -> None:
    share = tmp_path / "share"
    (share / "v2" / "night").mkdir(parents=True)
    for name in ("v2/a.jpg", "v2/night/b.mp4", "c.jpg"):
        (share / name).touch()
    (folder / "gate").symlink_to(share / "v2")
    (folder / "roof.png").symlink_to(share / "c.jpg")
    found = {s.path: s.camera for s in find_sources(folder)}
    assert len(found) == 4 + 3
    assert found[share / "v2" / "a.jpg"] == "gate"
    assert found[share / "v2" / "night" / "b.mp4"] == "gate/night"
    assert found[share / "c.jpg"] == "shop"
    # However a file is named, it is one source.
    (folder / "list.txt").write_text("roof.png\ngate/night/b.mp4\n")
    listed = find_sources(folder / "list.txt")
    assert [(s.path, s.camera) for s in listed] == [
        (share / "c.jpg", "shop"),
        (share / "v2" / "night" / "b.mp4", "b"),
    ]
    (alone,) = find_sources(folder / "roof.png")
    assert (alone.path, alone.camera) == (share / "c.jpg", "shop")
    # The folder may be a link, too.
    (tmp_path / "today").symlink_to(folder)
    again = {s.path: s.camera for s in find_sources(tmp_path / "today")}
    assert again.pop(folder / "1.jpg") == again.pop(share / "c.jpg") == "today"
    assert again.items() <= found.items()


def test_stores_of_what_links_lead_to_are_no_cameras(folder: Path) -> None:
    before = {s.camera for s in find_sources(folder)}
    (folder / ".git" / "objects").mkdir(parents=True)
    (folder / "yard" / "2.PNG").rename(folder / ".git" / "objects" / "2.PNG")
    (folder / "yard" / "2.PNG").symlink_to(folder / ".git" / "objects" / "2.PNG")
    assert {s.camera for s in find_sources(folder)} == before


def test_links_give_no_source_twice(folder: Path) -> None:
    before = {s.path: s.camera for s in find_sources(folder)}
    (folder / "yard" / "loop").symlink_to(folder)
    (folder / "yard" / "self").symlink_to(folder / "yard" / "self")
    (folder / "z").symlink_to(folder / "yard")
    (folder / "z.mp4").symlink_to(folder / "door.mp4")
    sources = find_sources(folder)
    assert len(sources) == len(before)
    assert {s.path: s.camera for s in sources} == before
    # The first name in the walk is that of the camera.
    (folder / "a").symlink_to(folder / "yard")
    assert find_sources(folder)[2].camera == "a"


def test_a_link_may_tell_the_kind(folder: Path) -> None:
    (folder / "yard" / "8f3e").touch()
    (folder / "roof.mp4").symlink_to(folder / "yard" / "8f3e")
    (folder / "link").symlink_to(folder)
    (source,) = find_sources(folder / "link" / "roof.mp4")
    assert source.path == folder / "roof.mp4"
    assert source.is_video


def test_links_that_lead_nowhere_are_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = find_sources(folder)
    (folder / "gate").symlink_to(folder / "share")
    assert find_sources(folder) == before
    assert caplog.messages == [f"{folder / 'gate'}: is left out (a link that leads nowhere)"]


def test_folders_that_cannot_be_read_are_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scandir, closed = os.scandir, str(folder / "yard")

    def guarded(place: str) -> Any:
        if os.fspath(place) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", closed)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", guarded)
    assert [source.camera for source in find_sources(folder)] == ["shop", "door"]
    assert caplog.messages == [f"{closed}: is left out (Permission denied)"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("\udcff.jpg", "the path .* is not UTF-8"),
        ("1\n.jpg", "the path .* holds a line break or another control character"),
        ("yard\r/1.jpg", "the path .* holds a line break or another control character"),
        ("\x1b[2J.mp4", "the path .* holds a line break or another control character"),
        ("1\u2028.jpg", "the path .* holds a line break or another control character"),
    ],
)
def test_paths_that_are_no_text_in_one_line(folder: Path, name: str, message: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    with pytest.raises(KdpsError, match=message) as error:
        find_sources(folder)
    assert str(error.value).isprintable()
    # Not all that is no letter does harm.
    (folder / name).rename(folder / "Foto\u202f1\xa0\u3042.jpg")
    assert len(find_sources(folder)) == 5


def test_cameras_that_are_no_text_in_one_line(folder: Path) -> None:
    (folder / "list.csv").write_text('path,camera\n1.jpg,"a\nb"\n')
    with pytest.raises(KdpsError, match=r"the camera 'a\\nb' holds a line break"):
        find_sources(folder / "list.csv")
    (folder / "gate\t").symlink_to(folder / "yard")
    with pytest.raises(KdpsError, match=r"the camera 'gate\\t' holds a line break"):
        find_sources(folder)
    assert find_sources(folder, "gate")


def test_shares_are_a_partition(folder: Path) -> None:
    sources = find_sources(folder)
    shares = [share_of(sources, number, 3) for number in (1, 2, 3)]
    assert sorted(s.name for share in shares for s in share) == sorted(s.name for s in sources)
