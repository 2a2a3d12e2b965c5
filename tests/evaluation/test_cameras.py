# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdps.data.galleries import NO_IMAGES, open_gallery_protocol
from kdps.data.protocol import Query, SearchProtocol
from kdps.data.records import make_annotation
from kdps.data.variants import restrict_to_cameras, strict
from kdps.errors import KdpsError
from kdps.evaluation.cameras import score_camera_pairs
from kdps.evaluation.search import score_search
from kdps.structures.detections import Detections

BOX = (10.0, 10.0, 50.0, 110.0)
NAN = float("nan")


def make_world(
    images: list[tuple[int, int, float]], queries: list[int]
) -> tuple[Detections, SearchProtocol]:
    """Images as (camera, person, similarity of the detection on the person to all queries).

    Args:
        images: one person each, detected exactly.
        queries: the images whose person is searched in all other images.
    """
    names = tuple(f"s{i}.jpg" for i in range(len(images)))
    records = [
        {"image_id": name, "cam_id": camera, "annotations": [make_annotation(BOX, person)]}
        for name, (camera, person, _) in zip(names, images, strict=True)
    ]
    similarity = np.array([value for _, _, value in images])
    emb = np.stack([similarity, np.sqrt(1 - similarity**2)], axis=1).astype(np.float32)
    detections = Detections(
        names=names,
        det_count=np.ones(len(images), dtype=np.int64),
        det=np.array([[*BOX, 0.9]] * len(images), dtype=np.float32),
        emb=emb,
        query_emb=np.array([[1, 0]] * len(queries), dtype=np.float32),
    )
    asked = [Query(names[i], BOX, images[i][1]) for i in queries]
    return detections, open_gallery_protocol("made", records, asked)


# Camera 2: person 1 is first among the others; camera 5: behind another; camera 7: never there.
GOLDEN = [
    (2, 1, 0.9),
    (2, 1, 0.8),
    (2, 2, 0.7),
    (5, 1, 0.5),
    (5, 2, 0.6),
    (7, 3, 0.4),
]


def test_by_hand() -> None:
    pairs = score_camera_pairs(*make_world(GOLDEN, queries=[0, 2, 3]))
    assert pairs.cameras.tolist() == [2, 5, 7]
    # From camera 2 person 1 (own frame left out: 0.8 right, 0.7 wrong) and person 2 (no other frame
    # in camera 2); in camera 5 person 1 is second and person 2 first. From camera 5 person 1: the
    # frames 0.9 and 0.8 are right, and camera 5 has no other frame of it.
    np.testing.assert_array_equal(pairs.mean_ap, [[1, 0.75, NAN], [1, NAN, NAN], [NAN] * 3])
    np.testing.assert_array_equal(pairs.top1, [[1, 0.5, NAN], [1, NAN, NAN], [NAN] * 3])
    assert pairs.num_queries.tolist() == [[1, 2, 0], [1, 0, 0], [0, 0, 0]]
    assert pairs.num_left_out.tolist() == [[1, 0, 2], [0, 1, 1], [0, 0, 0]]


def test_as_dict() -> None:
    pairs = score_camera_pairs(*make_world(GOLDEN, queries=[0, 2, 3]))
    content = json.loads(json.dumps(pairs.as_dict(), allow_nan=False))
    assert content["cameras"] == [2, 5, 7]
    assert content["mAP"][:2] == [[100, 75, None], [100, None, None]]
    assert content["top1"][0] == [100, 50, None]
    assert content["queries"][0] == [1, 2, 0]
    assert content["left_out"][0] == [1, 0, 2]


def test_settings_reach_the_search() -> None:
    detections, protocol = make_world(GOLDEN, queries=[0])
    detections.det[4, 4] = 0.6  # what stood above person 1 in camera 5
    assert score_camera_pairs(detections, protocol).mean_ap[0, 1] == 0.5
    assert score_camera_pairs(detections, protocol, score_thresh=0.7).mean_ap[0, 1] == 1
    assert score_camera_pairs(detections, protocol, weighted=True).mean_ap[0, 1] == 1


def test_a_person_who_is_there_twice_has_to_be_found_twice() -> None:
    detections, protocol = make_world(GOLDEN, queries=[0])
    further = (200.0, 10.0, 240.0, 110.0)
    records = [
        {"image_id": name, "annotations": [make_annotation(BOX, person)]}
        for name, (_, person, _) in zip(detections.names, GOLDEN, strict=True)
    ]
    records[3]["annotations"].append(make_annotation(further, 1))
    protocol = strict(protocol, records)
    pairs = score_camera_pairs(detections, protocol, repeats="each")
    assert pairs.mean_ap[0, :2].tolist() == [1, 0.25]


def test_what_is_ignored_stays_so_in_its_camera() -> None:
    detections, protocol = make_world(GOLDEN, queries=[0])
    # Neither right nor wrong in image 4, which stands above person 1 in camera 5.
    gallery = replace(
        protocol.galleries[0], ignored_images=np.array([2, 4]), ignored_boxes=np.array([BOX, BOX])
    )
    protocol = replace(protocol, galleries=(gallery,))
    assert score_camera_pairs(detections, protocol).mean_ap[0, :2].tolist() == [1, 1]


def test_errors() -> None:
    detections, protocol = make_world(GOLDEN, queries=[0])
    one = replace(protocol, cam_ids=np.zeros(len(GOLDEN), dtype=np.int64))
    with pytest.raises(KdpsError, match=r"^made: .*needs images of two.*of camera 0$"):
        score_camera_pairs(detections, one)
    none = replace(detections, query_emb=np.zeros((0, 2), np.float32))
    with pytest.raises(KdpsError, match="hold 0 query embeddings"):
        score_camera_pairs(none, protocol)
    with pytest.raises(KdpsError, match="made: no query has the person"):
        score_camera_pairs(*make_world(GOLDEN, queries=[5]))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Detections, SearchProtocol]:
    item = st.tuples(st.sampled_from([1, 2, 3]), st.integers(1, 2), st.integers(0, 9))
    images = [(c, p, s / 10) for c, p, s in draw(st.lists(item, min_size=1, max_size=8))]
    images += [(1, 1, 0.5), (2, 1, 0.5)]  # two cameras and a truth
    index = st.integers(0, len(images) - 1)
    queries = draw(st.lists(index, min_size=1, max_size=3)) + [len(images) - 1]
    detections, protocol = make_world(images, queries)
    detections.det_count[0] = 0
    detections = replace(detections, det=detections.det[1:], emb=detections.emb[1:])
    if draw(st.booleans()):
        galleries = []
        for gallery in protocol.galleries:
            listed = np.setdiff1d(np.arange(len(images)), gallery.excluded)
            galleries.append(replace(gallery, images=listed, excluded=NO_IMAGES))
        protocol = replace(protocol, galleries=tuple(galleries))
    return detections, protocol


@settings(max_examples=100)
@given(worlds())
def test_a_cell_is_the_search_of_its_queries_alone(world: Any) -> None:
    detections, protocol = world
    pairs = score_camera_pairs(detections, protocol)
    camera_of = dict(zip(protocol.images, protocol.cam_ids.tolist(), strict=True))
    for b, camera in enumerate(pairs.cameras.tolist()):
        restricted = restrict_to_cameras(protocol, [camera])
        for a, own in enumerate(pairs.cameras.tolist()):
            chosen = [i for i, q in enumerate(protocol.queries) if camera_of[q.image] == own]
            scored = [i for i in chosen if len(restricted.galleries[i].truth_images)]
            assert pairs.num_queries[a, b] == len(scored)
            assert pairs.num_left_out[a, b] == len(chosen) - len(scored)
            if not scored:
                assert np.isnan(pairs.mean_ap[a, b])
                continue
            part = replace(
                restricted,
                queries=tuple(protocol.queries[i] for i in scored),
                galleries=tuple(restricted.galleries[i] for i in scored),
            )
            query_emb = detections.query_emb[scored]
            metrics = score_search(replace(detections, query_emb=query_emb), part).metrics()
            assert 100 * pairs.mean_ap[a, b] == pytest.approx(metrics["mAP"])
            assert 100 * pairs.top1[a, b] == pytest.approx(metrics["top1"])
