# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from kdps.cli.main import main
from kdps.data.catalog import get_protocol
from kdps.data.datasets.layouts import detect_layout
from kdps.data.sources import source_of_root
from kdps.evaluation.detections_file import load_detections, save_detections
from kdps.evaluation.evaluation import evaluate_detections
from kdps.evaluation.settings import SearchSettings
from kdps.utils.testing_detections import detect_everybody
from kdps.utils.testing_layouts import TinyCuhkSysu, TinyPRW, tiny_json, write_json
from kdps.utils.testing_set import TINY_TEST, TINY_TRAIN


@dataclass(frozen=True)
class Made:
    """Root of a tiny set and a detections file of it."""

    root: Path
    file: Path

    def evaluate(self, *options: object) -> int:
        named = ["--root", self.root, "--detections", self.file]
        return main(["evaluate", *map(str, (*named, *options))])


def make(tiny: TinyPRW | TinyCuhkSysu, folder: Path) -> Made:
    root = tiny.write(folder / "set")
    source = source_of_root(root, detect_layout(root), "test")
    meta = {"method": "made up"}
    found = detect_everybody(source.load(), source.protocol(None), noise=2, meta=meta)
    # Some of them are below the default cut of the search.
    found.det[:, 4] = np.linspace(0.4, 0.99, len(found.det))
    save_detections(found, folder / "made.npz")
    return Made(root, folder / "made.npz")


@pytest.fixture
def prw(tmp_path: Path) -> Made:
    return make(TinyPRW(), tmp_path)


@pytest.fixture
def cuhk_sysu(tmp_path: Path) -> Made:
    return make(TinyCuhkSysu(), tmp_path)


def test_numbers_are_those_of_the_function(
    cuhk_sysu: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "numbers.json"
    options = ["--gallery-size", 50, 100, "--gt-boxes", "--top-k", 3, "--seed", 5]
    assert cuhk_sysu.evaluate(*options, "--json", output) == 0
    found = json.loads(output.read_text())
    source = source_of_root(cuhk_sysu.root, detect_layout(cuhk_sysu.root), "test")
    expected = evaluate_detections(
        load_detections(cuhk_sysu.file),
        source.load(),
        {size: source.protocol(size) for size in (50, 100)},
        SearchSettings(),
        dataset="cuhk-sysu:set",
        gt_boxes=True,
        top=3,
    ).as_dict(seed=5)
    assert found == json.loads(json.dumps(expected))
    assert found["detections"] == {"method": "made up"}
    out = capsys.readouterr().out
    for key in ("person_search_g50", "person_search_g100_gt_boxes"):
        metrics, interval = found[key], found["intervals"][key]
        span = f"{interval['mAP_lower']:.1f} to {interval['mAP_upper']:.1f}"
        assert re.search(
            rf"^{key} +{metrics['mAP']:.2f} +{span} +{metrics['top1']:.2f} ", out, re.M
        )
    detection = found["detection"]
    assert f"Detection: recall {detection['recall']:.2f} %, AP {detection['AP']:.2f} %" in out
    assert "galleries 50, 100, detection_score_thresh 0.01" in out
    assert out.endswith(f"Wrote {output}\n")


def test_the_default_gallery(prw: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert prw.evaluate() == 0
    out = capsys.readouterr().out
    assert re.search(r"^person_search +\d", out, re.MULTILINE)
    assert "rerank False, detection_score_thresh" in out
    assert "Errors" not in out
    assert "Wrote" not in out


def test_queries_that_cannot_be_scored_or_embedded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = TinyPRW()
    # Person 9 is in this frame only.
    tiny.queries.append((9, 80, 30, 20, 50, "c2s1_000012"))
    made = make(tiny, tmp_path)
    detections = load_detections(made.file)
    detections.query_emb[0] = 0
    save_detections(detections, made.file)
    assert made.evaluate() == 0
    out = capsys.readouterr().out
    assert "person_search: 1 queries left out: the person is nowhere in their gallery" in out
    assert "person_search: 1 queries found nothing: they have no embedding" in out


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ([], {"score_thresh": 0.5, "weighted": False, "protocol": "compat", "cameras": "all"}),
        (["--score-thresh", 0.25], {"score_thresh": 0.25}),
        (["--weighted"], {"weighted": True}),
        (["--protocol", "strict"], {"protocol": "strict"}),
        (["--protocol", "copies"], {"protocol": "copies"}),
        (["--cross-camera"], {"cameras": "cross"}),
        (["--multi-view"], {"cameras": "multi_view"}),
        (["--best-iou"], {"query_mode": "best_iou"}),
        (["--query-expansion", 2], {"query_expansion": 2}),
        # SeqNet's own numbers for PRW.
        (["--cbgm"], {"cbgm": True, "cbgm_k1": 30, "cbgm_k2": 4}),
        (["--cbgm", "--cbgm-k1", 5, "--cbgm-k2", 2], {"cbgm_k1": 5, "cbgm_k2": 2}),
        (["--rerank"], {"rerank": True}),
        (["--detection-score-thresh", 0.6], {"detection_score_thresh": 0.6}),
    ],
)
def test_options_reach_the_settings(
    prw: Made, tmp_path: Path, options: list[object], settings: dict[str, Any]
) -> None:
    assert prw.evaluate(*options, "--json", tmp_path / "numbers.json") == 0
    found = json.loads((tmp_path / "numbers.json").read_text())["settings"]
    assert {name: found[name] for name in settings} == settings


def test_cbgm_of_cuhk_sysu(cuhk_sysu: Made, tmp_path: Path) -> None:
    assert cuhk_sysu.evaluate("--cbgm", "--json", tmp_path / "numbers.json") == 0
    found = json.loads((tmp_path / "numbers.json").read_text())["settings"]
    assert (found["cbgm_k1"], found["cbgm_k2"]) == (10, 3)


def test_options_come_before_the_file(prw: Made, tmp_path: Path) -> None:
    detections = load_detections(prw.file)
    meta = {"score_thresh": 0.3, "weighted": True}
    save_detections(replace(detections, meta=meta), prw.file)
    for options, expected in (
        ([], (0.3, True)),
        (["--score-thresh", 0.6, "--no-weighted"], (0.6, False)),
    ):
        assert prw.evaluate(*options, "--json", tmp_path / "numbers.json") == 0
        found = json.loads((tmp_path / "numbers.json").read_text())["settings"]
        assert (found["score_thresh"], found["weighted"]) == expected


def test_details(prw: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prw.evaluate("--details", "--gt-boxes", "--json", tmp_path / "numbers.json") == 0
    found = json.loads((tmp_path / "numbers.json").read_text())
    assert list(found["errors"]) == list(found["camera_pairs"]) == ["person_search"]
    assert found["errors"]["person_search"]["mAP"] == found["person_search"]["mAP"]
    assert found["camera_pairs"]["person_search"]["cameras"] == [1, 2]
    out = capsys.readouterr().out
    assert f"person_search: mAP {found['person_search']['mAP']:.1f}; it would be" in out
    assert "person_search: mAP by camera pairs: lowest" in out


def test_details_of_a_set_without_cameras(
    cuhk_sysu: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cuhk_sysu.evaluate("--details", "--protocol", "strict") == 0
    details = capsys.readouterr().out.partition("person_search: mAP")[2]
    assert "if nothing wrong were ranked above" in details
    assert "camera" not in details


def test_report(prw: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, numbers = tmp_path / "new" / "report", tmp_path / "numbers.json"
    assert prw.evaluate("--report", folder, "--json", numbers) == 0
    assert [path.name for path in folder.iterdir()] == ["index.html"]
    page = (folder / "index.html").read_text(encoding="utf-8")
    found = json.loads(numbers.read_text())
    assert f"mAP is {found['person_search']['mAP']:.1f} (95\N{NO-BREAK SPACE}% interval" in page
    assert "What the errors cost" in page
    assert "Query 0: average precision" in page
    assert f"SHA-256 of {prw.file}" in page
    assert set(found) >= {"errors", "camera_pairs"}
    assert f"Wrote {numbers}\nWrote {folder / 'index.html'}\n" in capsys.readouterr().out


def test_report_without_images(prw: Made, tmp_path: Path) -> None:
    for image in (prw.root / "frames").iterdir():
        image.unlink()
    assert prw.evaluate("--report", tmp_path) == 0
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert re.search(r"No pictures: image \S+\.jpg does not exist\.", page)
    assert "data:image/jpeg" not in page


def test_report_names_a_set_that_is_one_file(tmp_path: Path) -> None:
    root = write_json(tmp_path / "coco", tiny_json())
    source = source_of_root(root, detect_layout(root), "test")
    save_detections(detect_everybody(source.load(), source.protocol(None)), tmp_path / "made.npz")
    named = ["--root", str(root), "--detections", str(tmp_path / "made.npz")]
    assert main(["evaluate", *named, "--report", str(tmp_path)]) == 0
    assert f"SHA-256 of {root}" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--help"])
    assert stop.value.code == 0
    assert "examples:\n  kdps evaluate prw_test --detections" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([TINY_TRAIN], "tiny_train is a training set, it has no queries"),
        ([TINY_TEST, TINY_TEST], "give one test set; a detections file is of one"),
        (["nowhere"], "unknown data set 'nowhere'; known are "),
        ([TINY_TEST, "--format", "prw"], "--format, --split and --image-root go with --root"),
        ([], "give the names of registered sets, or --root, but not both"),
    ],
)
def test_set_at_fault(
    setup: Any, names: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *names, "--detections", "none.npz"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"kdps: error: {message}")


def test_registered_set(setup: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = detect_everybody(DatasetCatalog.get(TINY_TEST), get_protocol(TINY_TEST))
    save_detections(found, tmp_path / "made.npz")
    named = [TINY_TEST, "--detections", str(tmp_path / "made.npz")]
    assert main(["evaluate", *named, "--report", str(tmp_path)]) == 0
    assert re.search(r"^person_search +100\.00 ", capsys.readouterr().out, re.MULTILINE)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert f"<dt>data set</dt><dd>{TINY_TEST}</dd>" in page
    # All of the tiny set is seen by one camera.
    assert "From camera to camera" not in page
