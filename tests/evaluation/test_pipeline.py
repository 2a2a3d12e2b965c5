# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Each setting reaches the search; what it does there is tested with its own module."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kdps.data.protocol import Gallery, Query, SearchProtocol
from kdps.data.records import make_annotation
from kdps.errors import KdpsError
from kdps.evaluation import pipeline
from kdps.evaluation.pipeline import FULL_SET, run_search
from kdps.evaluation.settings import SearchSettings
from kdps.structures.detections import Detections

BOX, ASIDE = (10.0, 10.0, 50.0, 110.0), (100.0, 10.0, 140.0, 110.0)


def unit(*values: float) -> np.ndarray:
    row = np.array(values)
    return (row / np.linalg.norm(row)).astype(np.float32)


QUERY, CLOSE, FAR = unit(1, 0, 0), unit(3, 1, 0), unit(1, 3, 0)


@pytest.fixture
def world():
    """Person 7 in four images of two cameras; somebody alike and sure stands in the third."""
    names = tuple(f"s{i}" for i in range(4))
    det = [[*BOX, 0.9], [*BOX, 0.6], [*ASIDE, 1.0], [*BOX, 0.9], [*BOX, 0.3]]
    detections = Detections(
        names=names,
        det_count=np.array([1, 1, 2, 1]),
        det=np.array(det, dtype=np.float32),
        emb=np.stack([QUERY, CLOSE, unit(3, 1.5, 0), FAR, QUERY]),
        query_emb=QUERY[None],
    )
    gallery = Gallery(
        None, np.array([0]), np.array([1, 2, 3]), np.tile(np.array(BOX), (3, 1)).astype(float)
    )
    protocol = SearchProtocol(
        "p", names, np.array([1, 1, 2, 2]), (Query("s0", BOX, 7),), (gallery,)
    )
    records = [{"image_id": name, "annotations": [make_annotation(BOX, 7)]} for name in names]
    return detections, records, protocol


def ranks(world, gallery=None, **settings) -> list[int]:
    search = run_search(*world, SearchSettings(**settings), gallery=gallery)
    return search.result.ranks[0].tolist()


def test_plain(world) -> None:
    assert ranks(world) == [1, 3]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"score_thresh": 0.2}, [1, 2, 4]),
        ({"score_thresh": 0.7}, [2]),
        # 1.0 of the other one beats 0.6 of the right one.
        ({"weighted": True}, [2, 3]),
        ({"cameras": "cross"}, [2]),
        # The sighting by the own camera is gone, the other one in the third image is not.
        ({"cameras": "multi_view", "score_thresh": 0.7}, [2]),
    ],
)
def test_settings_of_the_search(world, settings, expected) -> None:
    assert ranks(world, **settings) == expected


def test_protocols_differ_in_repeated_images(world) -> None:
    detections, records, protocol = world
    gallery = Gallery(
        np.array([1, 0, 1, 3]),
        np.zeros(0, np.int64),
        np.array([1, 0, 1]),
        np.tile(np.array(BOX), (3, 1)).astype(float),
    )
    world = detections, records, replace(protocol, galleries=(gallery,))
    assert ranks(world) == [1, 2]
    assert ranks(world, protocol="copies") == [1, 2, 3]
    assert ranks(world, gallery=FULL_SET) == [1, 2, 3]
    assert ranks(world, protocol="strict") == [1]
    assert ranks(world, gallery=FULL_SET, protocol="strict") == [1]


def test_the_query_may_come_from_a_detection(world) -> None:
    detections, records, protocol = world
    wrong = replace(detections, query_emb=unit(0, 0, 1)[None])
    search = run_search(wrong, records, protocol, SearchSettings(query_mode="best_iou"))
    assert search.detections.query_emb.tolist() == [QUERY.tolist()]
    assert search.result.ranks[0].tolist() == [1, 3]


def test_query_expansion_searches_again(world) -> None:
    search = run_search(*world, SearchSettings(query_expansion=1))
    np.testing.assert_allclose(
        search.detections.query_emb[0], unit(*(QUERY + CLOSE * 0.9487**3)), atol=1e-3
    )


def test_context_matching_lifts_what_is_matched(world) -> None:
    """The companion of the query stands in the third image as well, and is sure of it."""
    detections, records, protocol = world
    companion = unit(0, 0, 1)
    emb = detections.emb.copy()
    emb[2] = companion
    det = np.insert(detections.det, 1, [*ASIDE, 0.9], axis=0)
    detections = replace(
        detections,
        det_count=np.array([2, 1, 2, 1]),
        det=det,
        emb=np.insert(emb, 1, companion, axis=0),
    )
    world = detections, records, protocol
    plain = run_search(*world, SearchSettings())
    matched = run_search(*world, SearchSettings(cbgm=True, cbgm_k1=3, cbgm_k2=2))
    assert plain.result.ranks[0].tolist() == [1, 2]
    best = matched.result.similarity[0, 0]
    assert best == pytest.approx(1)
    assert matched.result.top[0, 0] == 4


def test_reranking_keeps_everybody_in_the_list(world) -> None:
    plain, reranked = (
        run_search(*world, SearchSettings(rerank=rerank)) for rerank in (False, True)
    )
    assert sorted(plain.result.top[0]) == sorted(reranked.result.top[0])
    assert (plain.result.similarity != reranked.result.similarity).any()


def test_one_camera_has_no_cross_camera_search(world) -> None:
    detections, records, protocol = world
    protocol = replace(protocol, cam_ids=np.zeros(4, np.int64))
    with pytest.raises(KdpsError, match="all images are of one camera"):
        run_search(detections, records, protocol, SearchSettings(cameras="cross"))


def test_the_number_of_companions_reaches_context_matching(world, monkeypatch) -> None:
    asked = []
    real = pipeline.ContextMatching

    def record(*args, **kwargs):
        asked.append(kwargs)
        return real(*args, **kwargs)

    monkeypatch.setattr(pipeline, "ContextMatching", record)
    run_search(*world, SearchSettings(cbgm=True, cbgm_k1=7, cbgm_k2=5, weighted=True))
    assert asked == [{"k1": 7, "k2": 5, "weighted": True}]


def test_weighting_reaches_reranking(world, monkeypatch) -> None:
    asked = []
    real = pipeline.KReciprocalReranking

    def record(*args, **kwargs):
        asked.append(kwargs)
        return real(*args, **kwargs)

    monkeypatch.setattr(pipeline, "KReciprocalReranking", record)
    run_search(*world, SearchSettings(rerank=True, weighted=True))
    assert asked == [{"weighted": True}]


def test_the_device_reaches_the_search(world, monkeypatch) -> None:
    asked = []
    real = pipeline.score_search

    def record(*args, **kwargs):
        asked.append(kwargs.pop("device"))
        return real(*args, **kwargs)

    monkeypatch.setattr(pipeline, "score_search", record)
    run_search(*world, SearchSettings(device="cuda"))
    assert asked == ["cuda"]


def test_a_query_by_overlap_is_matched_with_its_new_embedding(world) -> None:
    detections, records, protocol = world
    stored = replace(
        detections,
        query_emb=unit(0, 0, 1)[None],
        qdet_count=np.array([1]),
        qdet=np.array([[*BOX, 1]], dtype=np.float32),
        qdet_emb=unit(0, 0, 1)[None],
    )
    settings = SearchSettings(query_mode="best_iou", cbgm=True, cbgm_k1=3, cbgm_k2=1)
    search = run_search(stored, records, protocol, settings)
    assert search.detections.qdet_emb.tolist() == [QUERY.tolist()]
