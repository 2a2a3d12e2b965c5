# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kdps.evaluation.errors import ErrorSplit
from kdps.report.analyses import Analyses, analyse, error_sentences

Evaluate = Callable[..., Any]


def analyses_of(evaluated: Any) -> Analyses:
    return analyse(evaluated.evaluation, evaluated.records)


def test_numbers_are_those_of_the_search(of_prw: Evaluate) -> None:
    evaluated = of_prw()
    analyses = analyses_of(evaluated)
    (split,) = analyses.errors.values()
    # One of two queries has three wrong detections above its truth: (1 + 1/4) / 2.
    assert split.mean_ap == 62.5 == evaluated.evaluation.metrics()["person_search"]["mAP"]
    assert split.ranking_mended == 100
    (pairs,) = analyses.camera_pairs.values()
    assert pairs.cameras.tolist() == [1, 2]
    assert pairs.num_queries.tolist() == [[0, 1], [1, 0]]
    assert analyses.note == ""
    assert analyses.as_dict() == {
        "errors": {"person_search": split.as_dict()},
        "camera_pairs": {"person_search": pairs.as_dict()},
    }


def test_settings_of_the_search_are_kept(of_prw: Evaluate) -> None:
    analyses = analyses_of(of_prw(score_thresh=0.95))
    split = analyses.errors["person_search"]
    assert (split.mean_ap, split.num_missed) == (0, 2)
    assert analyses.camera_pairs["person_search"].mean_ap[0, 1] == 0
    crossed = analyses_of(of_prw(cameras="cross"))
    assert crossed.errors["person_search"].name == "prw_test_cross_camera"


def test_each_search_is_analysed_by_its_own_rules(of_cuhk_sysu: Evaluate) -> None:
    evaluated = of_cuhk_sysu()
    analyses = analyses_of(evaluated)
    names = ["person_search_g50", "person_search_g100", "person_search_all"]
    assert list(analyses.errors) == names
    metrics = evaluated.evaluation.metrics()
    for name in names:
        assert analyses.errors[name].mean_ap == metrics[name]["mAP"]
    # There are no cameras, which is not worth a word.
    assert (dict(analyses.camera_pairs), analyses.note) == ({}, "")


@pytest.mark.parametrize("protocol", ["strict", "copies"])
def test_other_rules(of_prw: Evaluate, protocol: str) -> None:
    evaluated = of_prw(protocol=protocol)
    analyses = analyses_of(evaluated)
    (search,) = evaluated.evaluation.distinct_searches().values()
    split = analyses.errors["person_search"]
    assert split.mean_ap == evaluated.evaluation.metrics()["person_search"]["mAP"]
    assert split.num_truths == search.result.num_truths.sum()
    assert list(analyses.camera_pairs) == ["person_search"]


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({"cbgm": True}, "Of the plain ranking, without context matching (CBGM)."),
        ({"rerank": True}, "Of the plain ranking, without re-ranking."),
        ({"query_expansion": 1}, ""),
    ],
)
def test_refinements_are_no_obstacle(of_prw: Evaluate, settings: dict[str, Any], note: str) -> None:
    evaluated = of_prw(**settings)
    analyses = analyses_of(evaluated)
    assert analyses.note == note
    if settings.get("query_expansion"):
        mean_ap = evaluated.evaluation.metrics()["person_search"]["mAP"]
        assert analyses.errors["person_search"].mean_ap == pytest.approx(mean_ap)
    else:
        assert analyses.errors["person_search"].mean_ap == 62.5


SPLIT = ErrorSplit(
    name="made",
    mean_ap=50.0,
    missed_mended=60.0,
    placement_mended=55.0,
    ranking_mended=75.0,
    num_truths=2000,
    num_matched=1500,
    num_missed=300,
    num_badly_placed=100,
    num_left_out=20,
    embedded=True,
    first_wrong={
        "other_person": 900,
        "unlabelled": 300,
        "background": 0,
        "second_box": 0,
        "badly_placed": 0,
    },
)


def test_sentences_have_counts_and_shares() -> None:
    assert error_sentences(SPLIT) == [
        "mAP 50.0; it would be 60.0 if no person were missed, 55.0 if no detection were badly "
        "placed, 75.0 if nothing wrong were ranked above.",
        "Of 2,000 appearances to find 1,500 (75.0 %) have a detection on them, 300 (15.0 %) are "
        "missed, 100 (5.0 %) have a badly placed one, 100 (5.0 %) are in a repeated image.",
        "20 missed ones, whose embedding is not known, count as mended when they are left out.",
        "In 1,200 queries something wrong stands above a right answer, first of all: "
        "900 (75.0 %) by another labelled person, 300 (25.0 %) by an unlabelled person.",
    ]


def test_sentences_without_what_is_not_there() -> None:
    flawless = replace(
        SPLIT,
        missed_mended=float("nan"),
        num_matched=1600,
        num_left_out=0,
        first_wrong=dict.fromkeys(SPLIT.first_wrong, 0),
    )
    sentences = error_sentences(flawless)
    assert len(sentences) == 2
    assert "not known if no person were missed" in sentences[0]
    assert "repeated" not in sentences[1]
    single = replace(SPLIT, first_wrong={**flawless.first_wrong, "background": 1})
    assert error_sentences(single)[-1].startswith("In 1 query something wrong")
