# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps export``, and ``kdps detect`` with its file."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from command_line import Run, runner

from kdps.evaluation.assemble import ImagePrediction
from kdps.evaluation.detections_file import load_detections
from kdps.evaluation.prediction_parts import PredictionParts

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def export(setup: Any, tmp_path: Path) -> Run:
    return runner(
        "export",
        config_file=setup.config,
        weights=setup.weights,
        output=tmp_path / "model.onnx",
        image=setup.images / "1.png",
    )


@pytest.mark.slow
def test_detect_finds_the_same_with_the_file(
    export: Run, setup: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export() == 0
    assert re.search(r"Wrote .*model.onnx: [1-9]\d+ detections", capsys.readouterr().out)
    found = {}
    for name, weights in (("model", setup.weights), ("file", tmp_path / "model.onnx")):
        detect = runner(
            "detect",
            config_file=setup.config,
            weights=weights,
            dataset="tiny_test",
            output=tmp_path / f"{name}.npz",
        )
        assert detect() == 0
        found[name] = load_detections(tmp_path / f"{name}.npz")
    model, file = found["model"], found["file"]
    assert model.meta["weights_sha256"] == file.meta["weights_sha256"]
    np.testing.assert_array_equal(model.det_count, file.det_count)
    np.testing.assert_allclose(model.det, file.det, rtol=0, atol=1e-4)
    np.testing.assert_allclose(model.emb, file.emb, rtol=0, atol=1e-4)
    assert detect(gt_boxes=True) == 2
    assert "an exported model embeds no boxes" in capsys.readouterr().err
    assert detect("TEST.PRECISION", "bfloat16") == 2
    assert "bfloat16, but an exported model computes" in capsys.readouterr().err
    assert detect("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.9") == 2
    assert f"{tmp_path / 'model.onnx'} was exported with 0.05" in capsys.readouterr().err


@pytest.mark.slow
def test_parts_of_another_model_or_file_are_not_taken_over(
    export: Run, setup: Any, tmp_path: Path
) -> None:
    file, other = tmp_path / "model.onnx", tmp_path / "other.onnx"
    assert export() == 0
    content = onnx.load(str(file))
    content.doc_string = "of the same weights and config"
    onnx.save(content, str(other))
    found = mock.patch.object(
        ImagePrediction, "from_output", side_effect=ImagePrediction.from_output
    )
    for weights, images in ((setup.weights, 12), (file, 12), (file, 0), (other, 12)):
        detect = runner(
            "detect",
            config_file=setup.config,
            weights=weights,
            dataset="tiny_test",
            output=tmp_path / "d.npz",
        )
        # As if each were stopped just before its end.
        with mock.patch.object(PredictionParts, "remove"), found as computed:
            assert detect() == 0
        assert computed.call_count == images, weights


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "model.pt"}, "--output: model.pt does not end in .onnx"),
        ({"image": "none.png"}, "none.png does not exist"),
        ({"weights": None}, "MODEL.WEIGHTS: empty"),
    ],
)
def test_errors_take_one_line(
    export: Run,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    message: str,
) -> None:
    assert export(**options) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "kdps: error" in x]
    assert message in line


def test_another_precision_is_refused(export: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("TEST.PRECISION", "bfloat16") == 2
    assert "bfloat16, but an exported model computes" in capsys.readouterr().err


def test_no_threshold_is_taken_that_a_file_does_not_have(
    export: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        export(score_thresh=0.9)
    assert "unrecognized arguments: --score-thresh" in capsys.readouterr().err


def test_boxes_of_a_data_set_are_refused(export: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("TEST.PERSON_SEARCH.BOXES", "annotated") == 2
    assert "BOXES: 'annotated' has no boxes of single images" in capsys.readouterr().err


def test_the_extra_is_named(
    export: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export() == 2
    assert "kdps with its extra 'export'" in capsys.readouterr().err
