# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import random
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog

from kdps.data.build import SeededDataset, build_test_loader, build_train_loader
from kdps.data.catalog import register_person_search
from kdps.errors import KdpsError
from kdps.utils.testing_set import TINY_TEST, register_tiny_sets, tiny_training_cfg

EMPTY = "empty_set_of_test_build"


@pytest.fixture(scope="module", autouse=True)
def _sets(tmp_path_factory: pytest.TempPathFactory) -> None:
    register_tiny_sets(tmp_path_factory.mktemp("tiny_set"))
    if EMPTY not in DatasetCatalog:
        register_person_search(EMPTY, list)


def batches(count: int, *opts: Any) -> list[list[dict[str, Any]]]:
    return list(islice(build_train_loader(tiny_training_cfg(Path("unused"), *opts)), count))


def assert_same(a: list[list[dict[str, Any]]], b: list[list[dict[str, Any]]]) -> None:
    assert [[x["image_id"] for x in batch] for batch in a] == [
        [x["image_id"] for x in batch] for batch in b
    ]
    for batch_a, batch_b in zip(a, b, strict=True):
        for x, y in zip(batch_a, batch_b, strict=True):
            assert torch.equal(x["image"], y["image"])
            boxes = x["instances"].gt_boxes.tensor, y["instances"].gt_boxes.tensor
            assert torch.equal(*boxes)


def test_batches_do_not_depend_on_the_workers() -> None:
    alone = batches(7)
    assert [len(batch) for batch in alone] == [4] * 7
    for workers in (1, 2):
        assert_same(alone, batches(7, "DATALOADER.NUM_WORKERS", workers))


def test_images_are_augmented_differently_each_epoch() -> None:
    # 12 images are 3 batches, so 60 batches show each image 20 times.
    views = [x for batch in batches(60) for x in batch if x["image_id"] == "5.png"]
    assert len(views) == 20
    shapes = {tuple(x["image"].shape) for x in views}
    lefts = {round(float(x["instances"].gt_boxes.tensor[0, 0]), 1) for x in views}
    assert len(shapes) > 1
    assert len(lefts) > len(shapes)


def test_another_seed_gives_other_batches() -> None:
    with pytest.raises(AssertionError):
        assert_same(batches(3), batches(3, "SEED", 4))


def test_loading_leaves_the_random_state_of_the_step_alone() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(1).item()

    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = draw()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    batches(2)
    batches(2, "DATALOADER.NUM_WORKERS", 1)
    assert draw() == expected


def test_sample_seed_decides_what_the_mapper_draws() -> None:
    dataset = SeededDataset([{}, {}], lambda record: {"draw": np.random.rand()})
    assert dataset[0, 5] == dataset[1, 5]
    assert dataset[0, 5] != dataset[0, 6]


def test_test_loader_gives_every_image_once_in_record_order() -> None:
    cfg = tiny_training_cfg(Path("unused"), "TEST.IMS_PER_BATCH", 5)
    loaded = list(build_test_loader(cfg, TINY_TEST))
    assert [len(batch) for batch in loaded] == [5, 5, 2]
    assert [x["image_id"] for batch in loaded for x in batch] == [f"{i}.png" for i in range(12)]
    queries = [int(q) for batch in loaded for x in batch for q in x["queries"].query_ids]
    assert sorted(queries) == [0, 1, 2, 3]


# Torch's advice on more workers than CPUs.
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_there_are_as_many_workers_as_asked_for() -> None:
    cfg = tiny_training_cfg(Path("unused"), "DATALOADER.NUM_WORKERS", 1000)
    assert build_test_loader(cfg, TINY_TEST).num_workers == 1000
    assert build_train_loader(cfg).num_workers == 1000


def test_empty_sets_are_refused() -> None:
    cfg = tiny_training_cfg(Path("unused"), "DATASETS.TRAIN", (EMPTY,))
    with pytest.raises(KdpsError, match=EMPTY):
        build_train_loader(cfg)
    with pytest.raises(KdpsError, match=f"DATASETS.TEST: data set '{EMPTY}' has no image"):
        build_test_loader(cfg, EMPTY)
