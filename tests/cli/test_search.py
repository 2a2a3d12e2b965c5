# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from command_line import Run, runner

from kdps.cli.main import main
from kdps.report.sheets import CELL_SIZE, cell_corner
from kdps.utils.testing_set import TINY_TEST
from kdps.utils.visualizer import Verdict

# Person 1 of the tiny set's image 1.png, as X Y W H.
BOX = ("6", "8", "16", "40")


@pytest.fixture
def run(setup: Any, tmp_path: Path) -> Run:
    """Runs ``kdps search``."""
    return runner(
        "search",
        config_file=setup.config,
        weights=setup.weights,
        query=setup.images / "1.png",
        box=BOX,
        gallery=setup.images,
        output=tmp_path / "sheet.png",
    )


def test_sheet_table_and_json(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(json=tmp_path / "hits.json", top_k=7) == 0
    data = json.loads((tmp_path / "hits.json").read_text())
    assert len(data["hits"]) == 7
    assert (data["num_images"], [Path(p).name for p in data["left_out"]]) == (11, ["1.png"])
    similarities = [hit["similarity"] for hit in data["hits"]]
    assert similarities == sorted(similarities, reverse=True)
    out = capsys.readouterr().out
    assert "rank" in out
    assert Path(data["hits"][0]["image"]).name in out
    assert "Left out, being the query image itself" in out
    sheet = cv2.imread(str(tmp_path / "sheet.png"))[:, :, ::-1]
    for row, column, verdict in ((0, 0, Verdict.QUERY), (0, 1, Verdict.HIT), (1, 2, Verdict.HIT)):
        x, y = cell_corner(row, column)
        assert sheet[y + 100, x + 1].tolist() == list(verdict.rgb)
    x, y = cell_corner(1, 3)
    assert (sheet[y : y + CELL_SIZE[1], x : x + CELL_SIZE[0]] == 255).all()


def test_identities_judge_the_hits(run: Run, tmp_path: Path) -> None:
    assert run(dataset=TINY_TEST, json=tmp_path / "hits.json", top_k=25) == 0
    verdicts = {hit["verdict"] for hit in json.loads((tmp_path / "hits.json").read_text())["hits"]}
    assert verdicts <= {"right", "wrong"}
    assert "wrong" in verdicts


def test_unjudged_when_the_query_is_nobody_known(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = ("60", "0", "20", "20")
    assert run(dataset=TINY_TEST, box=box, json=tmp_path / "hits.json") == 0
    hits = json.loads((tmp_path / "hits.json").read_text())["hits"]
    assert {hit["verdict"] for hit in hits} == {"hit"}
    assert "knows no identity in the query box" in caplog.text


def test_copy_of_the_query_is_left_out(run: Run, setup: Any, tmp_path: Path) -> None:
    gallery = tmp_path / "gallery"
    shutil.copytree(setup.images, gallery)
    assert run(gallery=gallery, json=tmp_path / "hits.json") == 0
    data = json.loads((tmp_path / "hits.json").read_text())
    assert data["left_out"] == [str(gallery / "1.png")]
    assert str(gallery / "1.png") not in {hit["image"] for hit in data["hits"]}


def test_unreadable_images_are_skipped_and_counted(
    run: Run,
    setup: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    gallery = tmp_path / "gallery"
    shutil.copytree(setup.images, gallery)
    (gallery / "broken.jpg").write_text("not an image")
    assert run(gallery=gallery, json=tmp_path / "hits.json") == 0
    skipped = json.loads((tmp_path / "hits.json").read_text())["skipped"]
    assert list(skipped) == [str(gallery / "broken.jpg")]
    assert "Skipped 1 unreadable image" in capsys.readouterr().out


def test_nobody_found(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(score_thresh=1.0) == 0
    assert "No person was found" in capsys.readouterr().out
    assert (tmp_path / "sheet.png").is_file()


def test_overrides_reach_the_config(run: Run, tmp_path: Path) -> None:
    for value in ("True", "False"):
        assert run("TEST.PERSON_SEARCH.WEIGHTED", value, json=tmp_path / "hits.json") == 0
        assert str(json.loads((tmp_path / "hits.json").read_text())["weighted"]) == value


def test_a_box_beyond_the_border_is_cut(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(box=("-5", "8", "30", "100"), json=tmp_path / "hits.json") == 0
    query = json.loads((tmp_path / "hits.json").read_text())["query"]
    assert query["bbox"] == [0, 8, 25, 64]
    assert "-5 8 30 100 leaves the 80x64 image" in caplog.text


def _file(folder: Path, content: bytes = b"") -> Path:
    (folder / "file.png").write_bytes(content)
    return folder / "file.png"


def _folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def _only_query(folder: Path, images: Path) -> Path:
    (folder / "one").mkdir()
    return Path(shutil.copy(images / "1.png", folder / "one")).parent


def _foreign_weights(folder: Path) -> Path:
    torch.save({"model": {"fc.weight": torch.zeros(2, 2)}}, folder / "foreign.pth")
    return folder / "foreign.pth"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t, s: {"query": t / "no.jpg"}, r"no\.jpg does not exist"),
        (lambda t, s: {"query": _file(t, b"text")}, r"file\.png cannot be read"),
        (lambda t, s: {"query": _file(t)}, r"file\.png cannot be read"),
        (lambda t, s: {"box": ("500", "8", "16", "40")}, "--box: 500 8 16 40 .* less than a pixel"),
        (lambda t, s: {"box": ("5", "8", "0", "40")}, "--box: .* width and height above 0"),
        (lambda t, s: {"box": ("5", "8", "16", "-40")}, "--box: .* width and height above 0"),
        (lambda t, s: {"box": ("nan", "8", "16", "40")}, "--box: nan 8 16 40"),
        (lambda t, s: {"gallery": t / "none"}, "gallery .*none does not exist"),
        (lambda t, s: {"gallery": _folder(t)}, "gallery .*empty holds no image"),
        (lambda t, s: {"gallery": _only_query(t, s.images)}, "no image but the query's own"),
        (lambda t, s: {"gallery": _file(t, b"text").parent}, "none of its images could be"),
        (lambda t, s: {"weights": t / "none.pth"}, r"none\.pth"),
        (lambda t, s: {"weights": _file(t, b"text")}, r"file\.png"),
        (lambda t, s: {"weights": _foreign_weights(t)}, r"foreign\.pth"),
        (lambda t, s: {"weights": None}, "MODEL.WEIGHTS"),
        (lambda t, s: {"config_file": t / "none.yaml"}, r"none\.yaml"),
        (lambda t, s: {"output": t / "sheet.tiff"}, "--output: .* ends in none of"),
        (lambda t, s: {"output": _file(t) / "sheet.png"}, "folder cannot be made"),
        (lambda t, s: {"top_k": 0}, "--top-k: must be at least 1"),
        (lambda t, s: {"score_thresh": 1.5}, "SCORE_THRESH: must be between 0 and 1, not 1.5"),
        (lambda t, s: {"dataset": "nowhere"}, "--dataset: no person-search set 'nowhere'"),
    ],
)
def test_errors_take_one_line(
    run: Run,
    setup: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    make: Callable[[Path, object], dict[str, object]],
    message: str,
) -> None:
    assert run(**make(tmp_path, setup)) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "kdps: error" in line]
    assert len(errors) == 1
    assert re.search(message, errors[0])
    assert not (tmp_path / "sheet.png").exists()


def test_unknown_key(run: Run, capsys: pytest.CaptureFixture) -> None:
    assert run("MODEL.NOTHING", "3") == 2
    assert "MODEL.NOTHING" in capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["search", "--help"])
    assert stop.value.code == 0
    assert "example:\n  kdps search --config-file" in capsys.readouterr().out


def test_input_image_size_does_not_matter(run: Run, tmp_path: Path) -> None:
    """Images of other sizes than the query's, and grey ones, take part."""
    gallery = tmp_path / "mixed"
    gallery.mkdir()
    rng = np.random.default_rng(0)
    cv2.imwrite(str(gallery / "a.jpg"), rng.integers(0, 255, (50, 130), dtype=np.uint8))
    cv2.imwrite(str(gallery / "b.bmp"), rng.integers(0, 255, (200, 60, 3), dtype=np.uint8))
    assert run(gallery=gallery, json=tmp_path / "hits.json") == 0
    data = json.loads((tmp_path / "hits.json").read_text())
    assert {Path(hit["image"]).name for hit in data["hits"]} == {"a.jpg", "b.bmp"}
