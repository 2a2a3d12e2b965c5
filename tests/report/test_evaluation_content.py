# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from kdps.report.analyses import analyse
from kdps.report.evaluation_content import EvaluationContent, gather_evaluation, label_of
from kdps.utils.testing_set import TINY_TEST

Evaluate = Callable[..., Any]


def gather(evaluated: Any, **options: Any) -> EvaluationContent:
    evaluation = evaluated.evaluation
    analyses = analyse(evaluation, evaluated.records)
    return gather_evaluation(
        evaluation, evaluation.as_dict(), evaluated.records, analyses, **options
    )


def test_rows_are_those_of_the_json(of_cuhk_sysu: Evaluate) -> None:
    evaluated = of_cuhk_sysu()
    content, numbers = gather(evaluated), evaluated.evaluation.as_dict()
    assert [(row.label, row.size, row.annotated) for row in content.rows] == [
        ("50 images", 2, False),
        ("100 images", 3, False),
        ("whole set", 3, False),
        ("50 images, annotated boxes", 2, True),
        ("100 images, annotated boxes", 3, True),
        ("whole set, annotated boxes", 3, True),
    ]
    for row in content.rows:
        assert row.metrics == numbers[row.key]
        assert row.interval == numbers["intervals"][row.key]
        assert row.counts["queries"] == 2


def test_facts_and_summary(of_prw: Evaluate) -> None:
    content = gather(of_prw())
    assert content.facts == {
        "test images": 4,
        "annotated persons": 6,
        "queries": 2,
        "identities searched for": 2,
    }
    assert content.summary() == (
        "mAP is 62.5 (95 % interval 25.0 to 100.0) and top-1 50.0 %, over 2 queries. The "
        "detections match 100.0 % of the annotated persons (AP 100.0 %)."
    )
    assert content.settings()["weighted"] == "no"
    # A list without entries says nothing.
    assert content.meta() == {"method": "made <b>up</b>", "numbers": "1, 2"}


def test_summary_names_the_gallery_if_there_are_several(of_cuhk_sysu: Evaluate) -> None:
    assert " in 2 images per query, over 2 queries." in gather(of_cuhk_sysu()).summary()


def test_single_query_has_no_interval(of_prw: Evaluate) -> None:
    evaluated = of_prw()
    numbers = evaluated.evaluation.as_dict()
    numbers["intervals"] = {"person_search": None}
    analyses = analyse(evaluated.evaluation, evaluated.records)
    content = gather_evaluation(evaluated.evaluation, numbers, evaluated.records, analyses)
    assert content.summary().startswith("mAP is 62.5 and top-1 50.0 %")


def test_pictures(of_prw: Evaluate, prw_root: Path, tmp_path: Path) -> None:
    evaluated = of_prw()
    content = gather(evaluated, num_queries=1)
    assert [query.query_id for query in content.shown] == [0]
    assert content.pictures_note == ""
    copy = shutil.copytree(prw_root, tmp_path / "prw")
    (copy / "frames" / "c2s1_000011.jpg").unlink()
    records = [
        {**record, "file_name": record["file_name"].replace(str(prw_root), str(copy))}
        for record in evaluated.records
    ]
    content = gather(replace(evaluated, records=records), num_queries=1)
    assert content.shown == ()
    missing = copy / "frames" / "c2s1_000011.jpg"
    assert content.pictures_note == f"No pictures: image {missing} does not exist."


def test_ten_hits_at_most(of_prw: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdps.report.evaluation_content._MAX_HITS", 2)
    assert {len(query.hits) for query in gather(of_prw()).shown} == {2}


def test_no_hits_are_no_sheets(of_prw: Evaluate) -> None:
    evaluated = of_prw()
    search = evaluated.evaluation.searches["person_search"]
    bare = replace(search, result=replace(search.result, top=search.result.top[:, :0]))
    evaluation = replace(evaluated.evaluation, searches={"person_search": bare})
    content = gather(replace(evaluated, evaluation=evaluation))
    assert content.shown == ()
    assert content.pictures_note == "No pictures: no hits were kept (--top-k 0)."


def test_note_of_a_registered_set(of_prw: Evaluate) -> None:
    evaluated = of_prw()
    assert gather(evaluated).set_note == ""
    assert "made_prw" not in DatasetCatalog
    MetadataCatalog.get(TINY_TEST).note = "Drawn."
    try:
        named = replace(evaluated, evaluation=replace(evaluated.evaluation, dataset=TINY_TEST))
        assert gather(named).set_note == "Drawn."
    finally:
        del MetadataCatalog.get(TINY_TEST).note


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("person_search", "Detections"),
        ("person_search_gt_boxes", "Annotated boxes"),
        ("person_search_g4000", "4,000 images"),
        ("person_search_all_gt_boxes", "whole set, annotated boxes"),
        ("person_search_occlusion", "occlusion"),
        ("person_search_glasses", "glasses"),
    ],
)
def test_labels(key: str, label: str) -> None:
    assert label_of(key) == label
