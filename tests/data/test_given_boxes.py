# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from kdps.data.dataset_mapper import PersonSearchDatasetMapper
from kdps.data.given_boxes import GivenBoxes
from kdps.errors import KdpsError
from kdps.evaluation.detections_file import save_detections
from kdps.structures.detections import Detections


@pytest.fixture
def path(tmp_path):
    emb = np.eye(3, 4, dtype=np.float32)
    det = np.array([[0, 0, 4, 8, 0.5], [2, 0, 6, 8, 0.25], [1, 1, 3, 9, 1.0]], dtype=np.float32)
    found = Detections(("a.jpg", "b.jpg", "c.jpg"), np.array([2, 0, 1]), det, emb, emb[:0])
    save_detections(found, tmp_path / "boxes.npz")
    return str(tmp_path / "boxes.npz")


def test_boxes_of_a_file_by_the_name_of_the_image(path):
    given = GivenBoxes(path)
    assert given({"image_id": "a.jpg"}).tolist() == [[0, 0, 4, 8, 0.5], [2, 0, 6, 8, 0.25]]
    assert given({"image_id": "b.jpg"}).shape == (0, 5)
    assert given({"image_id": "c.jpg"}).tolist() == [[1, 1, 3, 9, 1]]


def test_annotated_boxes_have_a_score_of_one():
    people = [{"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYWH_ABS}]
    given = GivenBoxes("annotated")
    assert given({"image_id": "x", "annotations": people}).tolist() == [[1, 2, 4, 6, 1]]
    assert given({"image_id": "x"}).shape == (0, 5)


def test_boxes_are_moved_by_the_same_part_of_each(path):
    plain = GivenBoxes(path)({"image_id": "a.jpg"})
    one, two = (GivenBoxes(path, shift)({"image_id": "a.jpg"}) for shift in (0.1, 0.2))
    # Of boxes 4 wide and 8 high: (dx / 4, dy / 8) is 0.1 long, whatever the direction.
    moves = (one - plain)[:, :2] / [4, 8]
    np.testing.assert_allclose(np.linalg.norm(moves, axis=1), 0.1, rtol=1e-5)
    np.testing.assert_allclose((one - plain)[:, 2:4] / [4, 8], moves, rtol=1e-4)
    assert one[:, 4].tolist() == plain[:, 4].tolist()
    # The direction is that of the box, not of the shift; boxes of an image go different ways.
    np.testing.assert_allclose(two - plain, 2 * (one - plain), rtol=1e-4)
    assert not np.allclose(moves[0], moves[1])
    assert GivenBoxes(path, 0.1)({"image_id": "b.jpg"}).shape == (0, 5)


def test_faults_name_key_and_file(path):
    with pytest.raises(KdpsError, match=r"TEST.PERSON_SEARCH.BOXES: .*boxes.npz has no image 'z'"):
        GivenBoxes(path)({"image_id": "z"})
    with pytest.raises(KdpsError, match=r"TEST.PERSON_SEARCH.BOXES: .*no\.npz"):
        GivenBoxes("no.npz")


def test_the_mapper_moves_them_with_the_image(path, tmp_path):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    record = {"file_name": str(tmp_path / "a.png"), "image_id": "a.jpg", "cam_id": 0}
    mapper = PersonSearchDatasetMapper(
        False,
        augmentations=[T.Resize((40, 80))],
        image_format="BGR",
        given_boxes=GivenBoxes(path),
    )
    found = mapper(record)["detected"]
    assert found.pred_boxes.tensor.tolist() == [[0, 0, 8, 16], [4, 0, 12, 16]]
    assert found.scores.tolist() == [0.5, 0.25]
    assert found.pred_classes.tolist() == [0, 0]


@pytest.mark.parametrize(
    "augmentations",
    [
        [],
        [T.Resize((40, 80))],
        [T.RandomFlip(1.0)],
        [T.Resize((50, 60)), T.RandomFlip(1.0)],
        [T.CropTransform(2, 1, 30, 18), T.Resize((36, 60))],
    ],
)
def test_boxes_lead_back_to_the_original(tmp_path, augmentations):
    pixels = np.arange(20 * 40 * 3, dtype=np.uint8).reshape(20, 40, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    people = [{"bbox": [4.0, 2.0, 12.0, 18.0], "bbox_mode": BoxMode.XYXY_ABS, "person_id": 3}]
    record = {"file_name": str(tmp_path / "a.png"), "annotations": people}
    mapper = PersonSearchDatasetMapper(
        True, augmentations=augmentations, image_format="RGB", keep_original=True
    )
    mapped = mapper(record)
    assert torch.equal(mapped["original"], torch.as_tensor(pixels.transpose(2, 0, 1).copy()))
    (factor_x, offset_x), (factor_y, offset_y) = mapped["to_original"]
    x1, y1, x2, y2 = mapped["instances"].gt_boxes.tensor[0].tolist()
    xs = sorted([factor_x * x1 + offset_x, factor_x * x2 + offset_x])
    assert [*xs, factor_y * y1 + offset_y, factor_y * y2 + offset_y] == pytest.approx(
        [4, 12, 2, 18], abs=1e-4
    )
    assert (factor_x < 0) == any(isinstance(own, T.RandomFlip) for own in augmentations)
