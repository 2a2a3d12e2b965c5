# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from command_line import Run, runner
from detectron2.data import DatasetCatalog, MetadataCatalog

from kdps.cli.main import main
from kdps.data.catalog import get_protocol, register_person_search
from kdps.engine import detect
from kdps.evaluation.assemble import ImagePrediction
from kdps.evaluation.detections_file import load_detections
from kdps.modeling.meta_arch.person_search_rcnn import PersonSearchRCNN
from kdps.train_net import main as train_net
from kdps.utils.testing_set import TINY_TEST, TINY_TRAIN


@pytest.fixture
def run(setup: Any, tmp_path: Path) -> Run:
    """Runs ``kdps detect`` on the tiny test set."""
    return runner(
        "detect",
        config_file=setup.config,
        weights=setup.weights,
        dataset=TINY_TEST,
        output=tmp_path / "d.npz",
    )


def assert_same_files(first: Path, second: Path, rtol: float = 0) -> None:
    one, other = load_detections(first), load_detections(second)
    assert one.names == other.names
    for name in ("det_count", "det", "emb", "query_emb", "gt_count", "gt_emb"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


def test_the_file_is_that_of_an_evaluation(
    run: Run, setup: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(gt_boxes=True) == 0
    file = tmp_path / "d.npz"
    assert f"Wrote {file}: 12 images, " in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["d.npz"]
    options = ("MODEL.WEIGHTS", str(setup.weights), "OUTPUT_DIR", str(tmp_path / "out"))
    gt_boxes = ("TEST.PERSON_SEARCH.GT_BOXES", "True")
    assert train_net(["--config-file", str(setup.config), "--eval-only", *options, *gt_boxes]) == 0
    written = tmp_path / "out" / "inference" / "detections.npz"
    assert_same_files(file, written)
    assert load_detections(file).meta == load_detections(written).meta
    assert main(["evaluate", TINY_TEST, "--detections", str(file), "--gt-boxes"]) == 0


def test_a_batch_changes_nothing(run: Run, tmp_path: Path) -> None:
    assert run() == 0
    assert run(batch_size=5, output=tmp_path / "batched.npz") == 0
    assert_same_files(tmp_path / "d.npz", tmp_path / "batched.npz", rtol=1e-5)


def test_a_folder_of_images(run: Run, setup: Any, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(setup.images, folder / "sub")
    assert run(dataset=None, images=folder, output=tmp_path / "folder.npz") == 0
    assert run() == 0
    found, known = load_detections(tmp_path / "folder.npz"), load_detections(tmp_path / "d.npz")
    assert set(found.names) == {f"sub/{name}" for name in known.names}
    assert found.query_emb.shape == (0, known.emb.shape[1])
    place = found.names.index(f"sub/{known.names[3]}")
    np.testing.assert_array_equal(
        found.det[found.offsets[place] : found.offsets[place + 1]],
        known.det[known.offsets[3] : known.offsets[4]],
    )


def interrupted_after(images: int) -> Any:
    """The model stops the run with Ctrl-C after some images."""
    inference, seen = PersonSearchRCNN.inference, []

    def stop(self: Any, inputs: list[dict[str, Any]], *args: Any, **kwargs: Any) -> Any:
        if len(seen) >= images:
            raise KeyboardInterrupt
        seen.extend(record["image_id"] for record in inputs)
        return inference(self, inputs, *args, **kwargs)

    return mock.patch.object(PersonSearchRCNN, "inference", stop)


@pytest.mark.parametrize("size", [3, 200])
def test_an_interrupted_run_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(detect, "_IMAGES_PER_PART", size)
    assert run(output=tmp_path / "whole.npz") == 0
    with interrupted_after(8):
        assert run() == 130
    assert not (tmp_path / "d.npz").exists()
    with mock.patch.object(
        ImagePrediction, "from_output", side_effect=ImagePrediction.from_output
    ) as computed:
        assert run() == 0
    assert computed.call_count == 4
    assert_same_files(tmp_path / "d.npz", tmp_path / "whole.npz")
    assert not (tmp_path / "d.npz.parts").exists()


def test_another_set_begins_anew(run: Run, request: pytest.FixtureRequest) -> None:
    """Sets may have images of the same names."""
    other = "tiny_other_of_test_detect"
    register_person_search(
        other, partial(DatasetCatalog.get, TINY_TEST), partial(get_protocol, TINY_TEST)
    )
    for catalog in (DatasetCatalog, MetadataCatalog):
        request.addfinalizer(partial(catalog.remove, other))
    with interrupted_after(8):
        run()
    with mock.patch.object(
        ImagePrediction, "from_output", side_effect=ImagePrediction.from_output
    ) as computed:
        assert run(dataset=other) == 0
    assert computed.call_count == 12


def test_another_config_begins_anew(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with interrupted_after(8):
        run()
    with mock.patch.object(
        ImagePrediction, "from_output", side_effect=ImagePrediction.from_output
    ) as computed:
        assert run("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.01") == 0
    assert computed.call_count == 12
    assert "d.npz.parts: 1 parts were damaged, or of other weights" in caplog.text


def test_a_replaced_image_is_looked_at_again(run: Run, setup: Any, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(setup.images, folder)
    here = {"dataset": None, "images": folder}
    with interrupted_after(8):
        run(**here)
    images = sorted(folder.iterdir())
    shutil.copyfile(images[-1], images[0])
    with mock.patch.object(
        ImagePrediction, "from_output", side_effect=ImagePrediction.from_output
    ) as computed:
        assert run(**here) == 0
    # Eight were done before.
    assert computed.call_count == len(images) - 8 + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "d.txt"}, "--output: d.txt does not end in .npz"),
        ({"weights": None}, "--weights: name the trained model"),
        ({"weights": "none.pth"}, "none.pth"),
        ({"batch_size": 0}, "--batch-size: must be at least 1, not 0"),
        ({"dataset": "nowhere"}, "unknown data set 'nowhere'"),
        ({"dataset": TINY_TRAIN}, f"--dataset: {TINY_TRAIN} is a training set"),
        ({"dataset": None, "images": "none"}, "none does not exist"),
        ({"dataset": None, "images": ".", "gt_boxes": True}, "--gt-boxes: a folder of images"),
    ],
)
def test_faults(
    run: Run, options: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(**options) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("kdps: error: ")
    assert message in lines[-1]


def test_a_damaged_image_is_named_and_costs_nothing(
    run: Run, setup: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(setup.images, folder)
    (folder / "3.png").write_bytes(b"no image")
    output = tmp_path / "folder.npz"
    assert run(dataset=None, images=folder, output=output) == 2
    assert f"image {folder / '3.png'} cannot be read" in capsys.readouterr().err
    (folder / "3.png").unlink()
    with mock.patch.object(
        ImagePrediction, "from_output", side_effect=ImagePrediction.from_output
    ) as computed:
        assert run(dataset=None, images=folder, output=output) == 0
    assert 0 < computed.call_count < 11
