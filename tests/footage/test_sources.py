# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from pathlib import Path

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


def test_paths_that_are_no_text(folder: Path) -> None:
    (folder / "\udcff.jpg").touch()
    with pytest.raises(KdpsError, match="is not UTF-8") as error:
        find_sources(folder)
    str(error.value).encode()


def test_shares_are_a_partition(folder: Path) -> None:
    sources = find_sources(folder)
    shares = [share_of(sources, number, 3) for number in (1, 2, 3)]
    assert sorted(s.name for share in shares for s in share) == sorted(s.name for s in sources)
