# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode
from PIL import Image

from kdps.config import get_cfg
from kdps.data.dataset_mapper import PersonSearchDatasetMapper, build_augmentation
from kdps.data.records import make_annotation
from kdps.errors import KdpsError

WIDTH, HEIGHT = 40, 20


@pytest.fixture
def record(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return {
        "file_name": str(tmp_path / "a.png"),
        "image_id": "a.png",
        "height": HEIGHT,
        "width": WIDTH,
        "cam_id": 3,
        "annotations": [
            make_annotation((4, 2, 12, 18), 5),
            make_annotation((30, 4, 50, 16), -1),
            make_annotation((45, 4, 50, 16), 6),
        ],
        "queries": [
            {"query_id": 8, "bbox": [30, 4, 50, 16], "bbox_mode": BoxMode.XYXY_ABS},
            {"query_id": 2, "bbox": [4, 2, 12, 18], "bbox_mode": BoxMode.XYXY_ABS},
        ],
    }


def make_mapper(is_train, **changes):
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN = (HEIGHT * 2,)
    cfg.INPUT.MIN_SIZE_TEST = HEIGHT * 2
    cfg.INPUT.RANDOM_FLIP = "none"
    for key, value in changes.items():
        node, _, leaf = key.rpartition("__")
        target = cfg
        for part in filter(None, node.split("__")):
            target = target[part]
        target[leaf] = value
    return PersonSearchDatasetMapper(cfg, is_train)


@pytest.mark.parametrize("resize", ["shortest_edge", "shortest_edge_floor"])
def test_training(record, resize):
    before = copy.deepcopy(record)
    out = make_mapper(True, INPUT__RESIZE=resize)(record)
    assert record == before
    assert out["image"].shape == (3, 2 * HEIGHT, 2 * WIDTH)
    expected = torch.uint8 if resize == "shortest_edge" else torch.float32
    assert out["image"].dtype == expected
    people = out["instances"]
    assert people.image_size == (2 * HEIGHT, 2 * WIDTH)
    # The second box is cut at the border, the third is outside.
    assert people.gt_boxes.tensor.tolist() == [[8, 4, 24, 36], [60, 8, 80, 32]]
    assert people.gt_pids.tolist() == [5, -1]
    assert people.gt_pids.dtype == torch.int64
    assert people.gt_classes.tolist() == [0, 0]
    assert (out["file_name"], out["image_id"], out["cam_id"]) == (record["file_name"], "a.png", 3)
    assert not {"annotations", "queries", "annotated"} & out.keys()


@pytest.mark.parametrize("annotations", [None, []])
def test_an_image_without_people_has_empty_fields(record, annotations):
    if annotations is None:
        del record["annotations"]
    else:
        record["annotations"] = annotations
    people = make_mapper(True)(record)["instances"]
    assert len(people) == 0
    assert people.gt_boxes.tensor.shape == (0, 4)
    assert people.gt_pids.shape == people.gt_classes.shape == (0,)
    assert people.gt_pids.dtype == torch.int64


def test_an_image_whose_boxes_are_all_outside_has_empty_fields(record):
    record["annotations"] = record["annotations"][2:]
    assert len(make_mapper(True)(record)["instances"].gt_pids) == 0


def test_flip_turns_boxes_with_the_image(record):
    plain = make_mapper(True)(record)
    flip = make_mapper(True, INPUT__RANDOM_FLIP="horizontal")
    flip.augmentations.augs[-1].prob = 1.0
    out = flip(record)
    torch.testing.assert_close(out["image"], plain["image"].flip(2))
    assert out["instances"].gt_boxes.tensor.tolist() == [[56, 4, 72, 36], [0, 8, 20, 32]]
    assert out["instances"].gt_pids.tolist() == [5, -1]


def test_test_time_keeps_every_given_box(record):
    cfg = {"INPUT__RANDOM_FLIP": "horizontal", "TEST__PERSON_SEARCH__GT_BOXES": True}
    out = make_mapper(False, **cfg)(record)
    assert out["queries"].boxes.tensor.tolist() == [[60, 8, 100, 32], [8, 4, 24, 36]]
    assert out["queries"].query_ids.tolist() == [8, 2]
    assert out["queries"].query_ids.dtype == torch.int64
    assert out["queries"].image_size == (2 * HEIGHT, 2 * WIDTH)
    assert len(out["annotated"]) == 3
    assert out["annotated"].boxes.tensor[2].tolist() == [90, 8, 100, 32]
    assert (out["height"], out["width"]) == (HEIGHT, WIDTH)
    assert "instances" not in out


def test_test_time_without_annotated_boxes_and_without_queries(record):
    del record["queries"]
    out = make_mapper(False)(record)
    assert "annotated" not in out
    assert out["queries"].boxes.tensor.shape == (0, 4)
    assert out["queries"].query_ids.shape == (0,)


def test_unknown_size_is_filled_in(record):
    del record["height"], record["width"]
    out = make_mapper(False)(record)
    assert (out["height"], out["width"]) == (HEIGHT, WIDTH)


def test_channel_order(record):
    rgb = make_mapper(False, INPUT__FORMAT="RGB")(record)["image"]
    bgr = make_mapper(False, INPUT__FORMAT="BGR")(record)["image"]
    torch.testing.assert_close(rgb, bgr.flip(0))


def test_crop_keeps_boxes_in_the_image(record):
    crop = {"INPUT__CROP__ENABLED": True, "INPUT__CROP__TYPE": "relative"}
    mapper = make_mapper(True, **crop, INPUT__CROP__SIZE=[0.5, 0.5])
    np.random.seed(0)
    for _ in range(20):
        out = mapper(record)
        h, w = out["image"].shape[1:]
        boxes = out["instances"].gt_boxes.tensor
        assert ((boxes >= 0) & (boxes <= torch.tensor([w, h, w, h]))).all()
        assert out["instances"].gt_boxes.nonempty().all()


@pytest.mark.parametrize(("share", "expected"), [(0.0, [5, -1]), (0.5, [5, -1]), (0.6, [5])])
def test_people_of_whom_too_little_is_left(record, share, expected):
    # Half of the second person is beyond the border, all of the third.
    out = make_mapper(True, INPUT__MIN_VISIBLE=share)(record)
    assert out["instances"].gt_pids.tolist() == expected


def test_a_query_without_a_part_in_the_image(record):
    record["queries"][0]["bbox"] = [41, 4, 50, 16]
    message = r"query 8 in image .*a\.png: bbox \[41, 4, 50, 16\] has no part in the 40x20 image"
    with pytest.raises(KdpsError, match=message):
        make_mapper(False)(record)


@pytest.mark.parametrize("bbox", [[5, 5, 5, 9], [1, float("nan"), 4, 4], [-9, 0, 0, 9]])
def test_a_query_box_at_fault(record, bbox):
    record["queries"][1]["bbox"] = bbox
    with pytest.raises(KdpsError, match="query 2 in image"):
        make_mapper(False)(record)


def test_missing_and_damaged_images(record, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(KdpsError, match=r"image .*a\.png cannot be read: ") as caught:
        make_mapper(True)(record)
    assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(KdpsError, match=r"image .*a\.png does not exist"):
        make_mapper(True)(record)


def test_another_size_than_recorded(record):
    record["width"] = 41
    with pytest.raises(KdpsError, match=r"image .*a\.png is 40x20, its record says 41x20"):
        make_mapper(True)(record)


def test_sizes_drawn_in_pairs():
    cfg = get_cfg()
    cfg.INPUT.RESIZE = "shortest_edge_opencv_uint8"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZES_TRAIN = (40, 80), (60, 100)
    resize = build_augmentation(cfg, True)[0]
    assert (resize.short_edge_length, resize.max_size) == ((40, 80), (60, 100))
    assert build_augmentation(cfg, False)[0].max_size == cfg.INPUT.MAX_SIZE_TEST


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("RESIZE", "shortest_edge", "'shortest_edge' knows only one MAX_SIZE_TRAIN"),
        ("MIN_SIZE_TRAIN", (40,), "has 2 sizes for the 1 of INPUT.MIN_SIZE_TRAIN"),
        ("MIN_SIZE_TRAIN_SAMPLING", "range", "needs INPUT.MIN_SIZE_TRAIN_SAMPLING 'choice'"),
    ],
)
def test_pairs_that_do_not_fit(key, value, message):
    cfg = get_cfg()
    cfg.INPUT.RESIZE = "shortest_edge_opencv_uint8"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZES_TRAIN = (40, 80), (60, 100)
    cfg.INPUT[key] = value
    with pytest.raises(KdpsError, match=f"INPUT.MAX_SIZES_TRAIN: .*{message}"):
        build_augmentation(cfg, True)


def test_unknown_resize():
    cfg = get_cfg()
    cfg.INPUT.RESIZE = "longest_edge"
    with pytest.raises(KdpsError, match="INPUT.RESIZE is 'longest_edge'; it should be"):
        build_augmentation(cfg, is_train=True)
