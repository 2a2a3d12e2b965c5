# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps gallery build`` and ``kdps search --index`` with random weights."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from command_line import Run, runner
from detectron2.modeling import build_model
from footage import rows_of

from kdps.engine.setup import load_cfg
from kdps.index.opening import open_index
from kdps.report.sheets import cell_corner
from kdps.search.images import read_bgr
from kdps.search.indexed import open_searcher

BOX = ("6", "8", "16", "40")


@pytest.fixture
def search(setup: Any, tmp_path: Path) -> Run:
    """Runs ``kdps search`` in the index."""
    return runner(
        "search",
        config_file=setup.config,
        weights=setup.weights,
        query=setup.images / "1.png",
        box=BOX,
        index=tmp_path / "footage.db",
        output=tmp_path / "sheet.png",
        json=tmp_path / "hits.json",
    )


def hits_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "hits.json").read_text())["hits"]


def errors_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if "kdps: error" in line]


def test_build_goes_on_and_adds(
    build: Run, footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "footage.db"
    assert build(start="2024-05-01T10:00:00") == 0
    assert "Looked at 12 frames of 5 sources" in capsys.readouterr().out
    first = rows_of(path)
    assert set(first.cameras.tolist()) == {"footage", "door"}
    video = first.take(first.cameras == "door")
    seconds = (np.unique(video.times) - video.times.min()) / 1e6
    # The first frames of the spans of half a second.
    assert seconds.tolist() == [0, 0.6, 1, 1.6, 2, 2.6, 3, 3.6]
    np.testing.assert_allclose(np.linalg.norm(first.embeddings, axis=1), 1, atol=1e-5)

    shutil.copy(footage / "1.png", footage / "new.png")
    assert build(start="2024-05-01T10:00:00") == 0
    out = capsys.readouterr().out
    assert "Looked at 1 frames of 1 sources" in out
    assert "5 sources were in the index already" in out
    second = rows_of(path)
    assert set(first.keys.tolist()) < set(second.keys.tolist())

    # What has changed is done again, and only that; the rest keeps its keys.
    cv2.imwrite(str(footage / "new.png"), np.zeros((64, 80, 3), np.uint8))
    assert build(start="2024-05-01T10:00:00") == 0
    assert "Looked at 1 frames of 1 sources" in capsys.readouterr().out
    third = rows_of(path)
    assert set(first.keys.tolist()) < set(third.keys.tolist())
    black = third.take(third.sources == str(footage / "new.png"))
    copied = first.take(first.sources == str(footage / "1.png"))
    assert not np.isin(black.embeddings, copied.embeddings).all()


def test_expiry(build: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "footage.db"
    assert build(start="2024-05-01T10:00:00") == 0
    before = rows_of(path)
    expire = runner("gallery expire", index=path)
    assert expire(before="2024-05-01T10:00:02", camera="door") == 0
    rows = rows_of(path)
    gone = (before.cameras == "door") & (before.times < 1714557602 * 1_000_000)
    assert 0 < gone.sum() < len(before)
    assert sorted(rows.keys.tolist()) == sorted(before.keys[~gone].tolist())
    assert (
        f"Removed {gone.sum()} persons seen before 2024-05-01T10:00:02" in capsys.readouterr().out
    )
    # A later build does not bring them back.
    assert build(start="2024-05-01T10:00:00") == 0
    assert "5 sources were in the index already" in capsys.readouterr().out
    assert len(rows_of(path)) == len(rows)
    assert expire(keep_days=30) == 0
    assert f"{path} holds 0." in capsys.readouterr().out


def test_expiry_of_what_has_no_date(
    build: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build() == 0
    expire = runner("gallery expire", index=tmp_path / "footage.db")
    assert expire(keep_days=0) == 0
    out = capsys.readouterr().out
    assert "Removed 0 persons" in out
    assert "of them have no date and never expire" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_days": -1}, "--keep-days: must be 0 or more, not -1"),
        ({"keep_days": 1e9}, "--keep-days: 1e\\+09 is before all dates"),
        ({"before": "yesterday"}, "--before: 'yesterday' is neither a date"),
        ({"before": "9999-12-31T23:59:59-10:00"}, "--before: .* is not of the years 1 to 9998"),
        ({"before": "0:10"}, "--before: '0:10' is no date, such as 2024-05-01"),
    ],
)
def test_faults_of_expiry(
    options: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runner("gallery expire", index=tmp_path / "footage.db")(**options) != 0
    (line,) = errors_of(capsys)
    assert re.search(message, line)


def test_shards_fill_one_index(build: Run, tmp_path: Path) -> None:
    assert build() == 0
    for shard in ("1/2", "2/2"):
        assert build(shard=shard, index=tmp_path / "shards.db") == 0
    whole, shards = rows_of(tmp_path / "footage.db"), rows_of(tmp_path / "shards.db")
    assert whole.keys.tolist() == shards.keys.tolist()
    np.testing.assert_allclose(whole.embeddings, shards.embeddings, atol=1e-5)


def test_batches_change_nothing(build: Run, tmp_path: Path) -> None:
    assert build() == 0
    assert build(batch_size=5, index=tmp_path / "batches.db") == 0
    whole, batches = rows_of(tmp_path / "footage.db"), rows_of(tmp_path / "batches.db")
    assert whole.keys.tolist() == batches.keys.tolist()
    np.testing.assert_allclose(whole.embeddings, batches.embeddings, atol=1e-4)


def test_search_with_a_box(
    build: Run, search: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build() == 0
    assert search(top_k=6, merge_gap=0) == 0
    out = capsys.readouterr().out
    assert "Searched an index with" in out
    assert "camera" in out
    hits = hits_of(tmp_path)
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4, 5, 6]
    similarities = [hit["similarity"] for hit in hits]
    assert similarities == sorted(similarities, reverse=True)
    assert {hit["sightings"] for hit in hits} == {1}
    assert read_bgr(tmp_path / "sheet.png").shape[0] > 500


def test_cameras_and_times(build: Run, search: Run, tmp_path: Path) -> None:
    assert build() == 0
    assert search("MODEL.DEVICE", "cpu", camera="door", merge_gap=0) == 0
    assert {hit["camera"] for hit in hits_of(tmp_path)} == {"door"}
    # All of three frames, of about 13 persons each.
    assert search(top_k=60, merge_gap=0, **{"from": "1", "to": "0:02.0"}) == 0
    assert {hit["time"] for hit in hits_of(tmp_path)} == {
        "00:00:01.000",
        "00:00:01.600",
        "00:00:02.000",
    }
    assert search(camera="door", merge_gap=10) == 0
    merged = hits_of(tmp_path)
    assert any(hit["sightings"] > 1 and hit["first"] < hit["last"] for hit in merged)
    assert search(camera="nowhere") == 0
    assert hits_of(tmp_path) == []


def test_the_query_image_is_left_out(
    build: Run, search: Run, footage: Path, tmp_path: Path
) -> None:
    assert build() == 0
    assert search(query=footage / "1.png", merge_gap=0) == 0
    images = {Path(hit["image"]).name for hit in hits_of(tmp_path)}
    assert images
    assert "1.png" not in images
    # Under another name it would find itself first.
    shutil.copy(footage / "1.png", tmp_path / "other.png")
    assert search(query=tmp_path / "other.png", merge_gap=0) == 0
    assert Path(hits_of(tmp_path)[0]["image"]).name == "1.png"


def test_a_link_does_not_find_itself(
    build: Run, search: Run, footage: Path, tmp_path: Path
) -> None:
    link, target = footage / "link.png", tmp_path / "target.png"
    (footage / "1.png").rename(target)
    link.symlink_to(target)
    assert build() == 0
    for query in (link, target):
        assert search(query=query, merge_gap=0) == 0
        images = {Path(hit["image"]) for hit in hits_of(tmp_path)}
        assert images
        assert not images & {link, target}


def test_a_frame_of_a_video_is_asked_for(
    build: Run, search: Run, footage: Path, tmp_path: Path
) -> None:
    assert build() == 0
    assert search(query=footage / "door.mkv", at="1.0", box=None, person=1, merge_gap=0) == 0
    best = hits_of(tmp_path)[0]
    # The very detection is in the index.
    assert (best["camera"], best["time"]) == ("door", "00:00:01.000")
    assert best["similarity"] == pytest.approx(1, abs=1e-5)


def test_a_person_is_chosen_by_number(
    build: Run,
    search: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert build() == 0
    assert search(box=None) == 2
    captured = capsys.readouterr()
    assert "--person: name the number" in captured.err
    assert (tmp_path / "sheet_persons.png").is_file()
    numbers = re.findall(r"^ +(\d+) ", captured.out, re.MULTILINE)
    assert numbers[:2] == ["1", "2"]

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("2\n"))
    assert search(box=None) == 0
    asked = hits_of(tmp_path)
    assert search(box=None, person=2) == 0
    assert hits_of(tmp_path) == asked
    assert search(box=None, person=1000) == 2
    monkeypatch.setattr(sys, "stdin", Terminal("me\n"))
    assert search(box=None) == 2


def test_footage_that_is_gone_has_no_picture(
    build: Run, search: Run, footage: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert build() == 0
    (footage / "door.mkv").unlink()
    assert search(camera="door", top_k=2) == 0
    assert len(hits_of(tmp_path)) == 2
    assert "no picture: video" in caplog.text
    x, y = cell_corner(0, 1)
    assert (read_bgr(tmp_path / "sheet.png")[y + 100, x + 50] == 200).all()


def test_ten_lines_of_python(build: Run, setup: Any, footage: Path, tmp_path: Path) -> None:
    assert build() == 0
    cfg = load_cfg(str(setup.config), ["MODEL.WEIGHTS", str(setup.weights)])
    image = read_bgr(footage / "1.png")
    with open_searcher(cfg, str(tmp_path / "footage.db")) as searcher:
        person = searcher.persons(image)[0]
        hits = searcher.find(person.embedding, top_k=3)
    assert hits[0].source == str(footage / "1.png")
    assert hits[0].similarity == pytest.approx(1, abs=1e-5)
    assert hits[0].box == pytest.approx(person.box, abs=1e-3)


def test_unreadable_sources_are_told_and_not_tried_again(
    build: Run,
    footage: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert build() == 0
    rows = len(rows_of(tmp_path / "footage.db"))
    (footage / "broken.jpg").write_text("no image")
    (footage / "broken.mp4").write_text("no video")
    data = (footage / "door.mkv").read_bytes()
    (footage / "cut.mkv").write_bytes(data[: len(data) // 2])
    capsys.readouterr()
    assert build() == 0
    out = capsys.readouterr().out
    assert "2 sources could not be read in whole" in out
    with open_index(str(tmp_path / "footage.db")) as index:
        record = index.records([str(footage / "broken.mp4")])[str(footage / "broken.mp4")]
    assert record.finished
    assert "cannot be read" in record.fault
    after = rows_of(tmp_path / "footage.db")
    assert len(after) > rows
    assert str(footage / "cut.mkv") in after.sources
    # They are told again.
    caplog.clear()
    assert build() == 0
    out = capsys.readouterr().out
    assert "8 sources were in the index already" in out
    assert "2 sources could not be read in whole" in out
    assert "tried again" not in out + caplog.text
    for name in ("broken.jpg", "broken.mp4"):
        assert f"{name} cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": "none"}, "--input: none does not exist"),
        ({"rate": 0}, "--rate: must be above 0"),
        ({"shard": "3/2"}, "--shard: '3/2' is not I/N"),
        ({"shard": "half"}, "--shard: 'half' is not I/N"),
        ({"start": "noon"}, "--start: 'noon' is neither"),
        ({"batch_size": 0}, "--batch-size: must be at least 1"),
        ({"index": "index.faiss"}, r"neither a local file that ends in \.db"),
        ({"index": "http://127.0.0.1:9"}, "http://127.0.0.1:9: .*server unavailable"),
        ({"index": "http://127.0.0.1:abc"}, "--index: http://127.0.0.1:abc cannot be opened"),
        ({"weights": None}, "MODEL.WEIGHTS"),
    ],
)
def test_errors_of_build_take_one_line(
    build: Run, capsys: pytest.CaptureFixture[str], options: dict[str, Any], message: str
) -> None:
    assert build(**options) == 2
    (line,) = errors_of(capsys)
    assert re.search(message, line)


def test_boxes_of_a_data_set_are_refused(
    build: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build("TEST.PERSON_SEARCH.BOXES", "annotated") == 2
    (line,) = errors_of(capsys)
    assert "BOXES: 'annotated' has no boxes of single images" in line
    assert not (tmp_path / "footage.db").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": "none.db"}, "--index: none.db does not exist"),
        ({"from": "2024-01-01", "to": "5"}, "one is a date"),
        ({"from": "late"}, "--from: 'late' is neither"),
        ({"at": "5"}, "--at: .* is no video"),
        ({"merge_gap": -1}, "--merge-gap: must be at least 0"),
        ({"dataset": "tiny_test"}, "--dataset: judges the hits of a folder"),
    ],
)
def test_errors_of_search_take_one_line(
    build: Run,
    search: Run,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    message: str,
) -> None:
    assert search(**options) == 2
    (line,) = errors_of(capsys)
    assert re.search(message, line)


def test_the_index_of_another_model_is_refused(
    build: Run, search: Run, setup: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build() == 0
    before = rows_of(tmp_path / "footage.db")
    cfg = load_cfg(str(setup.config), ["MODEL.REID_HEAD.EMBEDDING_DIM", "8"])
    for name, seed, config in (("weights", 1, setup.config), ("size", 0, tmp_path / "size.yaml")):
        model_cfg = load_cfg(str(setup.config), []) if name == "weights" else cfg
        (tmp_path / "size.yaml").write_text(cfg.dump())
        torch.manual_seed(seed)
        torch.save({"model": build_model(model_cfg).state_dict()}, tmp_path / "other.pth")
        capsys.readouterr()
        for command in (build, search):
            assert command(weights=tmp_path / "other.pth", config_file=config) == 2
            (line,) = errors_of(capsys)
            expected = "other weights" if name == "weights" else "embeddings of 16 numbers"
            assert expected in line
    assert rows_of(tmp_path / "footage.db").keys.tolist() == before.keys.tolist()
