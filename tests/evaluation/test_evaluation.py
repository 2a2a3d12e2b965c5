# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from kdps.data.records import make_annotation
from kdps.errors import KdpsError
from kdps.evaluation.evaluation import evaluate_detections, reported_metrics
from kdps.evaluation.settings import SearchSettings

PERSON = (10.0, 10.0, 50.0, 110.0)
ELSEWHERE = (200.0, 10.0, 240.0, 110.0)
A, B = np.eye(4, dtype=np.float32)[:2]


@pytest.fixture
def world(task):
    """Two queries, one of them without a truth; the right person is second of two."""
    images = [[(ELSEWHERE, 0.9, A)], [(PERSON, 0.9, (A + B) / np.sqrt(2).astype(np.float32))]]
    detections, protocol = task(images, [(1, PERSON)])
    empty = task([[]], [], gallery=[])[1].galleries[0]
    protocol = replace(
        protocol, queries=protocol.queries * 2, galleries=(protocol.galleries[0], empty)
    )
    detections = replace(detections, query_emb=np.stack([A, A]), meta={"method": "mine"})
    records = [
        {"image_id": name, "annotations": [make_annotation(PERSON, 1)]} for name in protocol.images
    ]
    return detections, records, protocol


def test_one_gallery_is_person_search(world) -> None:
    detections, records, protocol = world
    evaluation = evaluate_detections(detections, records, {None: protocol}, dataset="d")
    assert evaluation.metrics() == {
        "person_search": {"mAP": 50, "top1": 0, "top5": 100, "top10": 100},
        "detection": {"recall": 50, "AP": pytest.approx(25)},
    }


@pytest.mark.parametrize(
    ("galleries", "keys"),
    [
        ((100,), ["person_search", "person_search_g100"]),
        (("all",), ["person_search", "person_search_all"]),
        ((50, "all"), ["person_search_g50", "person_search_all"]),
    ],
)
def test_galleries_have_keys_that_are_foretold(world, galleries, keys) -> None:
    detections, records, protocol = world
    detections = replace(detections, gt_count=np.array([1, 1]), gt_emb=np.stack([B, A]))
    protocols = dict.fromkeys(galleries, protocol)
    metrics = evaluate_detections(detections, records, protocols, gt_boxes=True).metrics()
    assert list(metrics) == [*keys, *(f"{key}_gt_boxes" for key in keys), "detection"]
    assert metrics[f"{keys[0]}_gt_boxes"]["mAP"] == 100
    found = {f"{task}/{name}" for task, values in metrics.items() for name in values}
    assert found == set(reported_metrics(galleries, annotated=True))


def test_a_search_under_two_keys_is_one(world) -> None:
    detections, records, protocol = world
    evaluation = evaluate_detections(detections, records, {50: protocol})
    search = evaluation.searches["person_search_g50"]
    assert evaluation.distinct_searches() == {"person_search": search}


def test_json_says_what_was_done(world) -> None:
    detections, records, protocol = world
    evaluation = evaluate_detections(
        detections, records, {100: protocol}, SearchSettings(score_thresh=0.25), dataset="d"
    )
    content = evaluation.as_dict()
    assert json.loads(json.dumps(content)) == content
    assert content["dataset"] == "d"
    assert content["person_search"] == content["person_search_g100"]
    # One scored query has no interval; the search is described once.
    assert content["intervals"] == {"person_search": None}
    assert content["counts"]["person_search"] == {
        "queries": 1,
        "left_out": 1,
        "not_embedded": 0,
        "truths": 1,
        "found": 1,
    }
    assert content["settings"]["score_thresh"] == 0.25
    assert content["settings"]["galleries"] == [100]
    assert content["detections"] == {"method": "mine"}
    assert "kdps" in content["versions"]
    assert [query["AP"] for query in content["queries"]["person_search"]] == [50, None]


def test_queries_that_the_model_did_not_embed_are_counted(world) -> None:
    detections, records, protocol = world
    lost = replace(detections, query_emb=np.stack([A * 0, A]))
    content = evaluate_detections(lost, records, {None: protocol}).as_dict()
    assert content["person_search"]["mAP"] == 0
    assert content["counts"]["person_search"]["not_embedded"] == 1


def test_fewer_queries_than_the_detections_hold(world) -> None:
    detections, records, protocol = world
    protocol = replace(
        protocol, queries=(protocol.queries[0], replace(protocol.queries[1], bbox=ELSEWHERE))
    )
    part = replace(
        protocol, name="part", queries=protocol.queries[1:], galleries=protocol.galleries[:1]
    )
    found = replace(detections, query_emb=np.stack([A, B]))
    evaluation = evaluate_detections(found, records, {"part": part}, queries_of=protocol)
    assert evaluation.metrics()["person_search_part"]["mAP"] == 100


def test_faults(world) -> None:
    detections, records, protocol = world
    with pytest.raises(KdpsError, match="gt_emb"):
        evaluate_detections(detections, records, {None: protocol}, gt_boxes=True)
    with pytest.raises(KdpsError, match="no gallery"):
        evaluate_detections(detections, records, {})
