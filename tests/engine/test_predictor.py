# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model

from kdps.data.build import build_test_loader
from kdps.engine.predictor import PersonSearchPredictor
from kdps.errors import KdpsError
from kdps.utils.testing_set import TINY_TEST, tiny_training_cfg


@pytest.fixture(scope="module")
def cfg(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("predictor")
    torch.manual_seed(0)
    cfg = tiny_training_cfg(folder, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    torch.save({"model": build_model(cfg).state_dict()}, folder / "model.pth")
    cfg.MODEL.WEIGHTS = str(folder / "model.pth")
    return cfg


@pytest.fixture(scope="module")
def predictor(cfg: Any) -> PersonSearchPredictor:
    return PersonSearchPredictor(cfg)


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_agrees_with_the_test_loader(cfg: Any, image_format: str) -> None:
    cfg = cfg.clone()
    cfg.INPUT.FORMAT = image_format
    predictor = PersonSearchPredictor(cfg)
    record = DatasetCatalog.get(TINY_TEST)[1]
    batch = next(x for x in build_test_loader(cfg, TINY_TEST) if x[0]["image_id"] == "1.png")
    with torch.no_grad():
        expected = predictor.model(batch)[0]
    boxes = np.array([query["bbox"] for query in record["queries"]])
    output = predictor(cv2.imread(record["file_name"]), boxes)
    assert len(expected["instances"]) > 0
    for name in ("pred_boxes", "scores", "pred_embeddings"):
        assert_fields_equal(output["instances"], expected["instances"], name)
    assert_fields_equal(output["queries"], expected["queries"], "pred_embeddings")
    torch.testing.assert_close(
        output["queries"].pred_boxes.tensor, torch.as_tensor(boxes, dtype=torch.float32)
    )


def assert_fields_equal(a: Any, b: Any, name: str) -> None:
    x, y = (getattr(v.get(name), "tensor", v.get(name)) for v in (a, b))
    torch.testing.assert_close(x, y)


def test_query_ids_are_rows_of_the_boxes(predictor: PersonSearchPredictor) -> None:
    image = np.zeros((64, 80, 3), dtype=np.uint8)
    boxes = np.array([[0, 0, 20, 40], [30, 5, 60, 60], [-10, -10, 200, 200]])
    output = predictor(image, boxes)
    assert output["queries"].query_ids.tolist() == [0, 1, 2]
    assert output["queries"].pred_embeddings.shape == (3, 16)
    assert len(predictor(image, np.zeros((0, 4)))["queries"]) == 0


@pytest.mark.parametrize(
    ("shape", "boxes", "message"),
    [
        ((64, 80), None, r"image: expected \(H, W, 3\)"),
        ((0, 80, 3), None, "image: expected"),
        ((64, 80, 3), [1, 2, 3, 4], r"boxes: expected \(Q, 4\)"),
        ((64, 80, 3), [[5, 5, 5, 20]], r"boxes: \[5.0, 5.0, 5.0, 20.0\] \(XYXY\) has no area"),
        ((64, 80, 3), [[90, 5, 99, 20]], "no area in the 80 x 64 image"),
        ((64, 80, 3), [[1, 1, 9, 9], [float("nan")] * 4], "no area"),
    ],
)
def test_bad_input(
    predictor: PersonSearchPredictor, shape: tuple[int, ...], boxes: Any, message: str
) -> None:
    image = np.zeros(shape, dtype=np.uint8)
    with pytest.raises(KdpsError, match=message):
        predictor(image, None if boxes is None else np.array(boxes))


def test_weights_are_needed(cfg: Any, tmp_path: Path) -> None:
    cfg = cfg.clone()
    cfg.MODEL.WEIGHTS = ""
    with pytest.raises(KdpsError, match=r"MODEL\.WEIGHTS: empty"):
        PersonSearchPredictor(cfg)
    torch.save({"model": {}}, tmp_path / "empty.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "empty.pth")
    with pytest.raises(KdpsError, match=r"MODEL\.WEIGHTS: .*empty\.pth does not fill the model"):
        PersonSearchPredictor(cfg)


def test_boxes_of_a_data_set_are_refused(cfg: Any) -> None:
    cfg = cfg.clone()
    cfg.TEST.PERSON_SEARCH.BOXES = "annotated"
    with pytest.raises(KdpsError, match="BOXES: 'annotated' has no boxes of single images"):
        PersonSearchPredictor(cfg)
