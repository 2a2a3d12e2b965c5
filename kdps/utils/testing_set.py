# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A person-search set of a few small images for tests, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from kdps.data.catalog import register_person_search
from kdps.data.protocol import Gallery, Query, SearchProtocol
from kdps.data.records import UNLABELLED, attach_queries, make_annotation
from kdps.utils.testing import tiny_cfg

TINY_TRAIN, TINY_TEST = "tiny_train", "tiny_test"
HEIGHT, WIDTH = 64, 80
PEOPLE = 4
# XYXY boxes of the two people of image 0; those of image i stand i % 8 pixels further right.
_BOXES = ((5, 8, 21, 48), (40, 10, 56, 50))


def register_tiny_sets(folder: Path, images: int = 12) -> None:
    """Write the images and register ``tiny_train`` and ``tiny_test`` over them.

    Image i shows persons i % PEOPLE and (i + 1) % PEOPLE as rectangles of their colours. In
    training, the second one of every third image is unlabelled. The query of person p is in image
    p, which its gallery leaves out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(images):
        path = folder / f"{index}.png"
        if not path.exists():
            cv2.imwrite(str(path), _draw(index))
    for name in (TINY_TRAIN, TINY_TEST):
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    register_person_search(TINY_TRAIN, lambda: _records(folder, images, train=True))
    register_person_search(
        TINY_TEST, lambda: _test_records(folder, images), lambda size: _protocol(images)
    )


def tiny_training_cfg(output_dir: Path, *opts: Any) -> CfgNode:
    """Config of a short training on the tiny sets; ``opts`` are keys and values that override it.

    It is complete (seed and table sizes), as a trainer expects it.
    """
    return tiny_cfg(
        *("DATASETS.TRAIN", (TINY_TRAIN,), "DATASETS.TEST", (TINY_TEST,)),
        *("INPUT.MIN_SIZE_TRAIN", (56, 64, 72), "INPUT.MAX_SIZE_TRAIN", 100),
        *("INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 100),
        *("DATALOADER.NUM_WORKERS", 0, "DATALOADER.ASPECT_RATIO_GROUPING", False),
        *("SOLVER.IMS_PER_BATCH", 4, "SOLVER.BASE_LR", 0.01, "SOLVER.MAX_ITER", 8),
        *("SOLVER.STEPS", (6,), "SOLVER.WARMUP_ITERS", 3, "SOLVER.CHECKPOINT_PERIOD", 4),
        *("TEST.EVAL_PERIOD", 4, "LOG.PERIOD", 2, "SEED", 3, "OUTPUT_DIR", str(output_dir)),
        *("MODEL.REID_HEAD.NUM_PIDS", PEOPLE, "MODEL.REID_HEAD.QUEUE_SIZE", 4),
        *opts,
    )


def _boxes(index: int) -> np.ndarray:
    return np.asarray(_BOXES, dtype=np.float64) + [index % 8, 0, index % 8, 0]


def _pids(index: int) -> list[int]:
    return [index % PEOPLE, (index + 1) % PEOPLE]


def _draw(index: int) -> np.ndarray:
    image = np.random.default_rng(index).integers(90, 130, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    colours = np.random.default_rng(7).integers(0, 255, (PEOPLE, 3))
    for pid, (x1, y1, x2, y2) in zip(_pids(index), _boxes(index).astype(int), strict=True):
        image[y1:y2, x1:x2] = colours[pid]
    return image


def _records(folder: Path, images: int, train: bool) -> list[dict[str, Any]]:
    records = []
    for index in range(images):
        pids = _pids(index)
        if train and index % 3 == 0:
            pids[1] = UNLABELLED
        people = zip(_boxes(index), pids, strict=True)
        records.append(
            {
                "file_name": str(folder / f"{index}.png"),
                "image_id": f"{index}.png",
                "height": HEIGHT,
                "width": WIDTH,
                "cam_id": 0,
                "annotations": [make_annotation(box, pid) for box, pid in people],
            }
        )
    return records


def _test_records(folder: Path, images: int) -> list[dict[str, Any]]:
    records = _records(folder, images, train=False)
    attach_queries(records, _protocol(images))
    return records


def _protocol(images: int) -> SearchProtocol:
    queries, galleries = [], []
    for pid in range(PEOPLE):
        where = [i for i in range(images) if i != pid and pid in _pids(i)]
        truths = [_boxes(i)[_pids(i).index(pid)] for i in where]
        queries.append(Query(f"{pid}.png", tuple(_boxes(pid)[0]), pid))
        galleries.append(Gallery(None, np.array([pid]), np.array(where), np.array(truths)))
    names = tuple(f"{i}.png" for i in range(images))
    cam_ids = np.zeros(images, dtype=np.int64)
    return SearchProtocol(TINY_TEST, names, cam_ids, tuple(queries), tuple(galleries))
