# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Hand-made detections of the tiny set, and the report on them."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from kdps.data.catalog import get_protocol
from kdps.report.content import ReportContent, ReportSettings, gather_content
from kdps.report.history import TrainingHistory
from kdps.structures.detections import Detections
from kdps.utils.testing_set import TINY_TEST, register_tiny_sets


def make_detections() -> Detections:
    """Finds everybody but in the last image; takes person 3 for person 2 half of the time."""
    records = DatasetCatalog.get(TINY_TEST)
    det, emb, counts = [], [], []
    for index, record in enumerate(records):
        people = record["annotations"] if index < len(records) - 1 else []
        for person in people:
            pid = person["person_id"]
            seen_as = 2 if pid == 3 and index % 2 else pid
            det.append([*person["bbox"], 0.9])
            emb.append(np.eye(4)[seen_as])
        counts.append(len(people))
    people = [a["person_id"] for record in records for a in record["annotations"]]
    return Detections(
        names=tuple(record["image_id"] for record in records),
        det_count=np.array(counts),
        det=np.array(det, dtype=np.float32),
        emb=np.array(emb, dtype=np.float32),
        query_emb=np.eye(4, dtype=np.float32)[
            [query.person_id for query in get_protocol(TINY_TEST).queries]
        ],
        gt_count=np.array([len(record["annotations"]) for record in records]),
        gt_emb=np.eye(4, dtype=np.float32)[people],
    )


@pytest.fixture(scope="package", autouse=True)
def _tiny_sets(tmp_path_factory: pytest.TempPathFactory) -> None:
    register_tiny_sets(tmp_path_factory.mktemp("tiny_set"))


@pytest.fixture
def detections() -> Detections:
    return make_detections()


@pytest.fixture(scope="package")
def content(_tiny_sets: None) -> ReportContent:
    history = TrainingHistory(
        losses={"total_loss": [(0, 3.0), (20, 1.0)], "loss_oim": [(0, 2.0), (20, 0.7)]},
        search_map=[(10, 40.0), (20, 55.0)],
    )
    return gather_content(
        make_detections(),
        TINY_TEST,
        ReportSettings(num_queries=4),
        history=history,
        notes={"command": "kdps report <script>alert(1)</script>"},
        config="MODEL:\n  WEIGHTS: ''\n",
    )
