# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Hand-made detections of tiny sets, the report and the evaluations on them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from kdps.data.catalog import get_protocol
from kdps.data.datasets.cuhk_sysu import load_cuhk_sysu, load_cuhk_sysu_protocol
from kdps.data.datasets.prw import load_prw, load_prw_protocol
from kdps.data.variants import full_set
from kdps.evaluation.evaluation import Evaluation, evaluate_detections
from kdps.evaluation.settings import SearchSettings
from kdps.report.content import ReportContent, ReportSettings, gather_content
from kdps.report.history import TrainingHistory
from kdps.structures.detections import Detections
from kdps.utils.testing_detections import detect_everybody
from kdps.utils.testing_layouts import TinyCuhkSysu, TinyPRW
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


# What the writer of detections said; the page has to escape it.
META = {"method": "made <b>up</b>", "numbers": [1, 2], "empty": []}


@dataclass(frozen=True)
class Evaluated:
    """An evaluation and the records that it is of."""

    evaluation: Evaluation
    records: list[dict[str, Any]]


def evaluate_prw(root: Path, **settings: Any) -> Evaluated:
    """Two cameras, one gallery; the first query finds its person first, the second one last."""
    records, protocol = load_prw(root, "test"), load_prw_protocol(root)
    detections = detect_everybody(records, protocol, meta=META)
    # Nothing looks less like person 30 than its detection in camera 1.
    lost = protocol.images.index("c1s1_000012.jpg")
    detections.emb[detections.offsets[lost]] = -detections.query_emb[1]
    evaluation = evaluate_detections(
        detections, records, {None: protocol}, SearchSettings(**settings), dataset="made_prw"
    )
    return Evaluated(evaluation, records)


def evaluate_cuhk_sysu(root: Path, **settings: Any) -> Evaluated:
    """Two lists and the whole set, among detections and annotated boxes; two queries."""
    records = load_cuhk_sysu(root, "test")
    lists = {size: load_cuhk_sysu_protocol(root, size) for size in (50, 100)}
    detections = detect_everybody(records, lists[50], meta=META)
    # The second query finds the first person instead of its own.
    detections.query_emb[1] = detections.query_emb[0]
    evaluation = evaluate_detections(
        detections,
        records,
        {**lists, "all": full_set(lists[50], "all")},
        SearchSettings(**settings),
        dataset="made_cuhk",
        gt_boxes=True,
    )
    return Evaluated(evaluation, records)


@pytest.fixture(scope="package")
def prw_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TinyPRW().write(tmp_path_factory.mktemp("prw"))


@pytest.fixture(scope="package")
def cuhk_sysu_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TinyCuhkSysu().write(tmp_path_factory.mktemp("cuhk"))


@pytest.fixture(scope="package")
def of_prw(prw_root: Path) -> Callable[..., Evaluated]:
    return functools.partial(evaluate_prw, prw_root)


@pytest.fixture(scope="package")
def of_cuhk_sysu(cuhk_sysu_root: Path) -> Callable[..., Evaluated]:
    return functools.partial(evaluate_cuhk_sysu, cuhk_sysu_root)
