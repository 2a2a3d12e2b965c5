# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Run, runner

from kdps.cli.main import main
from kdps.evaluation.detections_file import load_detections, save_detections


@pytest.fixture
def run(setup: Any, tmp_path: Path) -> Run:
    """Runs ``kdps report``."""
    return runner(
        "report",
        config_file=setup.config,
        weights=setup.weights,
        output=tmp_path / "report.html",
        queries=2,
    )


@pytest.fixture(scope="module")
def evaluated(setup: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the report of the model, its files and a metrics.json beside the weights."""
    folder = tmp_path_factory.mktemp("evaluated")
    weights = Path(shutil.copy(setup.weights, folder / "model.pth"))
    (folder / "config.yaml").write_text("SOLVER: that of the training\n")
    record = {"iteration": 19, "total_loss": 2.5, "loss_box_reid": 2.0}
    (folder / "metrics.json").write_text(json.dumps(record) + "\n")
    code = main(
        ["report", "--config-file", str(setup.config), "--weights", str(weights)]
        + ["--output", str(folder / "page" / "report.html"), "--queries", "3"]
    )
    assert code == 0
    return folder


def test_evaluates_and_writes_page_and_numbers(evaluated: Path) -> None:
    page = (evaluated / "page" / "report.html").read_text()
    assert "Training: losses" in page
    data = json.loads((evaluated / "page" / "report.json").read_text())
    rows = {row["row"]: row for row in data["rows"]}
    assert set(rows) == {"model", "random", "histogram", "gt_boxes"}
    settings = data["settings"]
    assert settings["seed of the training"] == "3"
    assert len(settings["SHA-256 of the weights"]) == 64
    assert "torch" in settings["versions"]
    assert "commit of this report" in settings
    assert settings["threshold of the detector"] == "0.05"
    assert "EMBEDDING_DIM: 16" in data["config"]
    assert data["training_config"] == "SOLVER: that of the training\n"
    assert "SOLVER: that of the training" in page
    detections = load_detections(evaluated / "page" / "report" / "inference" / "detections.npz")
    assert detections.gt_emb is not None
    # The numbers of the report are those of the evaluation.
    results = json.loads(
        (evaluated / "page" / "report" / "inference" / "person_search_results.json").read_text()
    )
    assert rows["model"]["mAP"] == pytest.approx(results["person_search"]["mAP"])
    assert rows["gt_boxes"]["mAP"] == pytest.approx(results["person_search_gt_boxes"]["mAP"])
    assert data["detection"] == pytest.approx(results["detection"])


def test_reuses_detections_without_a_model(
    run: Run, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = evaluated / "page" / "report" / "inference" / "detections.npz"
    assert run(detections=file, weights=None) == 0
    again = json.loads((tmp_path / "report.json").read_text())
    first = json.loads((evaluated / "page" / "report.json").read_text())
    assert again["rows"] == first["rows"]
    assert again["model_minus_histogram"] == first["model_minus_histogram"]
    assert again["settings"]["detections"] == str(file)
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.json"}
    out = capsys.readouterr().out
    for label in ("Trained model", "Random embeddings", "Colour histogram", "annotated boxes"):
        assert label in out
    assert f"Wrote {tmp_path / 'report.html'}" in out


def test_three_rows_without_embeddings_of_annotated_boxes(
    run: Run, evaluated: Path, tmp_path: Path
) -> None:
    detections = load_detections(evaluated / "page" / "report" / "inference" / "detections.npz")
    save_detections(replace(detections, gt_count=None, gt_emb=None), tmp_path / "some.npz")
    assert run(detections=tmp_path / "some.npz") == 0
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert [row["row"] for row in rows] == ["model", "random", "histogram"]


def test_training_seed_comes_from_the_checkpoint_if_the_config_leaves_it_open(
    run: Run, setup: Any, evaluated: Path, tmp_path: Path
) -> None:
    file = evaluated / "page" / "report" / "inference" / "detections.npz"
    content = torch.load(setup.weights, weights_only=True)
    for trainer, expected in (({"trainer": {"seed": 41}}, "41"), ({}, "unknown")):
        torch.save({**content, **trainer}, tmp_path / "model.pth")
        assert run("SEED", "-1", detections=file, weights=tmp_path / "model.pth", queries=0) == 0
        settings = json.loads((tmp_path / "report.json").read_text())["settings"]
        assert settings["seed of the training"] == expected


def _text(path: Path) -> Path:
    path.write_text("no detections")
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: {"output": t / "report.pdf"}, "--output: .* does not end in .html"),
        (lambda t: {"weights": None}, "--weights: name the trained model"),
        (lambda t: {"weights": t / "none.pth"}, r"none\.pth"),
        (lambda t: {"detections": t / "none.npz"}, r"none\.npz: cannot be read"),
        (lambda t: {"detections": _text(t / "text.npz")}, r"text\.npz: not a detections file"),
        (lambda t: {"config_file": t / "none.yaml"}, r"none\.yaml"),
        (lambda t: {"queries": -1}, "--queries and --seed"),
        (lambda t: {"seed": -1}, "--queries and --seed"),
    ],
)
def test_errors_take_one_line(
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    make: Callable[[Path], dict[str, object]],
    message: str,
) -> None:
    assert run(**make(tmp_path)) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "kdps: error" in line]
    assert len(errors) == 1
    assert re.search(message, errors[0])
    assert not (tmp_path / "report.html").exists()


def test_detections_of_another_set(run: Run, evaluated: Path, tmp_path: Path, capsys: Any) -> None:
    detections = load_detections(evaluated / "page" / "report" / "inference" / "detections.npz")
    names = ("other.jpg", *detections.names[1:])
    save_detections(replace(detections, names=names), tmp_path / "other.npz")
    assert run(detections=tmp_path / "other.npz") == 2
    assert "other.jpg" in capsys.readouterr().err


def test_unknown_test_set(run: Run, capsys: pytest.CaptureFixture) -> None:
    assert run("DATASETS.TEST", "('nowhere',)") == 2
    assert "DATASETS.TEST: unknown data set 'nowhere'" in capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["report", "--help"])
    assert stop.value.code == 0
    assert "example:\n  kdps report --config-file" in capsys.readouterr().out
