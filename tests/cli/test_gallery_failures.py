# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps gallery build`` where the machine that holds the index fails."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run
from footage import rows_of
from milvus_server import running_server

from kdps.errors import KdpsError
from kdps.footage.video import VideoFrame, VideoReader
from kdps.index.milvus import MilvusIndex
from kdps.index.sightings import Sightings
from kdps.search.images import read_bgr


def assert_equal_rows(one: Sightings, two: Sightings) -> None:
    assert one.keys.tolist() == two.keys.tolist()
    np.testing.assert_allclose(one.embeddings, two.embeddings, atol=1e-5)


def test_a_server_that_goes_away_loses_nothing(
    build: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(index=tmp_path / "whole.db") == 0
    whole, upsert = rows_of(tmp_path / "whole.db"), MilvusIndex.upsert
    with running_server(tmp_path / "server") as (server, where):

        def go_away_after(index: MilvusIndex, sightings: Sightings) -> None:
            upsert(index, sightings)
            server.stop(grace=0).wait()

        monkeypatch.setattr(MilvusIndex, "upsert", go_away_after)
        monkeypatch.setattr("kdps.footage.build._FRAMES", 4)
        capsys.readouterr()
        assert build(index=where, batch_size=1) == 2
        (line,) = capsys.readouterr().err.splitlines()[-1:]
        assert f"kdps: error: {where}: " in line
        assert "server unavailable" in line
    monkeypatch.setattr(MilvusIndex, "upsert", upsert)
    with running_server(tmp_path / "server") as (_, where):
        assert 0 < len(rows_of(where)) < len(whole)
        assert build(index=where) == 0
        assert_equal_rows(rows_of(where), whole)


@pytest.mark.parametrize("old_options", [True, False])
@pytest.mark.parametrize(
    ("method", "call"), [("record", 3), ("remove", 2), ("upsert", 2), ("record", 4)]
)
def test_changed_options_lose_nothing(
    method: str,
    call: int,
    old_options: bool,
    build: Run,
    footage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With another camera a build fails while it stores the second source."""
    path = tmp_path / "footage.db"
    assert build() == 0
    old, working, calls = rows_of(path), getattr(MilvusIndex, method), itertools.count(1)

    def failing(index: MilvusIndex, what: Any, *others: Any) -> None:
        if len(what) and next(calls) == call:
            raise KdpsError("the disk is full")
        working(index, what, *others)

    with monkeypatch.context() as patched:
        patched.setattr("kdps.footage.build._FRAMES", 1)
        patched.setattr(MilvusIndex, method, failing)
        assert build(camera="gate", batch_size=1) == 2
    left = rows_of(path)
    assert set(left.cameras[left.sources == str(footage / "0.png")].tolist()) == {"gate"}
    # What it has not come to is as it was.
    begun = [str(footage / "0.png"), str(footage / "1.png")]
    assert_equal_rows(
        left.take(~np.isin(left.sources, begun)), old.take(~np.isin(old.sources, begun))
    )

    assert build(camera=None if old_options else "gate") == 0
    new = rows_of(path)
    assert_equal_rows(new, old)
    assert set(new.cameras.tolist()) == ({"footage", "door"} if old_options else {"gate"})


def test_a_share_that_goes_away_is_tried_again(
    build: Run,
    footage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It does so first while images are read, then in the middle of a video."""
    assert build(index=tmp_path / "whole.db") == 0
    away = tmp_path / "away"

    def go_away(path: Path) -> np.ndarray:
        if path.name == "2.png":
            footage.rename(away)
        return read_bgr(path)

    class CutReader(VideoReader):
        fault = "reading ended before the end (Input/output error)"

        def frames(self, *arguments: Any) -> Iterator[VideoFrame]:
            yield from itertools.islice(super().frames(*arguments), 3)
            footage.rename(away)

    capsys.readouterr()
    for name, double, looked_at, faults in (
        ("read_bgr", go_away, "2 frames of 5", 3),
        ("VideoReader", CutReader, "5 frames of 3", 1),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(f"kdps.footage.frames.{name}", double)
            assert build() == 0
        away.rename(footage)
        out = capsys.readouterr().out
        assert f"Looked at {looked_at} sources" in out
        assert f"{faults} of them will be tried again by the next build." in out
        told = [text for text in caplog.messages if text.endswith("; the next build tries again")]
        assert len(told) == faults
        caplog.clear()
    assert build() == 0
    assert "Looked at 5 frames of 1 sources" in capsys.readouterr().out
    assert_equal_rows(rows_of(tmp_path / "footage.db"), rows_of(tmp_path / "whole.db"))


# Runs a command line with a limit on the size of files, which is to a program as a full disk. Each
# frame is a commit, of which some are in the index before the disk is full.
LIMITED = """
import resource, sys
from kdps.cli.main import main
from kdps.footage import build
build._FRAMES = 1
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_a_full_disk_loses_nothing(build: Run, setup: Any, footage: Path, tmp_path: Path) -> None:
    assert build(index=tmp_path / "whole.db") == 0
    arguments = ["--config-file", setup.config, "--weights", setup.weights, "--input", footage]
    command = ["gallery", "build", *arguments, "--index", tmp_path / "footage.db"]
    command += ["--batch-size", 1]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "25000", *map(str, command)], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if "kdps: error" in line]
    assert len(errors) == 1
    assert "footage.db" in errors[0]
    stored, whole = rows_of(tmp_path / "footage.db"), rows_of(tmp_path / "whole.db")
    assert 0 < len(stored) < len(whole)
    assert build() == 0
    assert_equal_rows(rows_of(tmp_path / "footage.db"), whole)
