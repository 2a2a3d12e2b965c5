# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from kdps.data.catalog import get_protocol
from kdps.evaluation.search import SearchResult, score_search
from kdps.report.showcase import choose_queries, image_files, show_query
from kdps.structures.detections import Detections
from kdps.utils.testing_set import TINY_TEST
from kdps.utils.visualizer import Verdict


def make_result(ap: list[float], num_truths: list[int]) -> SearchResult:
    empty = np.zeros((len(ap), 0))
    return SearchResult(
        name="made",
        ap=np.array(ap),
        num_truths=np.array(num_truths),
        ranks=(np.zeros(0, dtype=np.int64),) * len(ap),
        top=empty.astype(np.int64),
        similarity=empty.astype(np.float32),
        on_person=empty.astype(bool),
        counted=empty.astype(bool),
    )


def test_best_worst_and_random() -> None:
    result = make_result([0.5, 1.0, 0.0, 1.0, np.nan, 0.2, 0.7], [1, 1, 1, 3, 0, 1, 1])
    chosen = choose_queries(result, 5, seed=0)
    # Of the two perfect ones, that with three appearances comes first.
    assert chosen[:4] == [(3, "best"), (1, "best"), (2, "worst"), (5, "worst")]
    assert chosen[4][1] == "random"
    assert chosen[4][0] in (0, 6)


def test_never_twice_nor_without_truth() -> None:
    result = make_result([0.5, 1.0, np.nan, 0.2], [1, 1, 0, 1])
    for number in range(12):
        ids = [query for query, _ in choose_queries(result, number, seed=1)]
        assert len(ids) == len(set(ids)) == min(number, 3)
        assert 2 not in ids


def test_seed_picks_the_random_ones() -> None:
    result = make_result(list(np.linspace(0, 1, 200)), [1] * 200)
    picks = {tuple(choose_queries(result, 9, seed=seed)[6:]) for seed in range(3)}
    assert len(picks) == 3
    assert choose_queries(result, 9, seed=2) == choose_queries(result, 9, seed=2)


def test_hits_are_judged_as_scored(detections: Detections) -> None:
    protocol = get_protocol(TINY_TEST)
    files = image_files(DatasetCatalog.get(TINY_TEST))
    result = score_search(detections, protocol)
    shown = show_query(3, "worst", result, detections, protocol, files)
    assert [hit.verdict is Verdict.RIGHT for hit in shown.hits] == result.on_person[3].tolist()
    assert {hit.verdict for hit in shown.hits} == {Verdict.RIGHT, Verdict.WRONG}
    assert shown.ap == pytest.approx(100 * result.ap[3])
    assert shown.num_truths == result.num_truths[3]
    # The detector missed the last image, in which person 3 stands.
    assert shown.num_found == shown.num_truths - 1
    assert shown.hits[0].heading == "1"
    assert shown.hits[0].lines[-1] == detections.names[detections.image_of_det[result.top[3, 0]]]
    assert shown.query.verdict is Verdict.QUERY
    assert shown.truths == ()


def test_truths_are_shown_where_every_hit_is_wrong(detections: Detections) -> None:
    protocol = get_protocol(TINY_TEST)
    files = image_files(DatasetCatalog.get(TINY_TEST))
    confused = replace(detections, query_emb=detections.query_emb[[1, 0, 2, 3]])
    result = score_search(confused, protocol, top=3)
    shown = show_query(0, "worst", result, confused, protocol, files)
    assert {hit.verdict for hit in shown.hits} == {Verdict.WRONG}
    truths = protocol.galleries[0].truth_images
    assert [cell.lines[0] for cell in shown.truths] == [protocol.images[i] for i in truths[:5]]
    assert {cell.verdict for cell in shown.truths} == {Verdict.TRUTH}
