# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdps.data.galleries import NO_IMAGES, open_gallery_protocol
from kdps.data.protocol import Gallery, Query, SearchProtocol
from kdps.data.records import make_annotation
from kdps.errors import KdpsError
from kdps.evaluation.annotated import annotated_as_detections
from kdps.evaluation.entries import REPEATS, Repeats
from kdps.evaluation.errors import FIRST_WRONG_KINDS, split_errors
from kdps.evaluation.search import score_search
from kdps.structures.detections import Detections

Box = tuple[float, ...]
# Annotated persons (box, identity, similarity of the box to the query) and detections (box,
# similarity) of one image.
Image = tuple[Sequence[tuple[Box, int, float]], Sequence[tuple[Box, float]]]

PERSON = (10.0, 10.0, 50.0, 110.0)
LOOSE = (34.0, 10.0, 74.0, 110.0)  # IoU 0.25 with PERSON
NEXT = (40.0, 10.0, 80.0, 110.0)  # IoU 1/7 with PERSON, 17/23 with LOOSE
ELSEWHERE = (200.0, 10.0, 240.0, 110.0)
QUERY_FRAME: Image = ([(PERSON, 1, 1.0)], [])


def row(similarity: float) -> list[float]:
    return [similarity, math.sqrt(1 - similarity**2)]


def make_world(
    *images: Image, queries: Sequence[int] = (1,)
) -> tuple[Detections, list[dict[str, Any]], SearchProtocol]:
    """The persons of ``queries`` are searched from the first image in all others."""
    names = tuple(f"s{i}.jpg" for i in range(len(images)))
    found = [item for _, detected in images for item in detected]
    people = [item for annotated, _ in images for item in annotated]
    records = [
        {
            "image_id": name,
            "cam_id": 0,
            "annotations": [make_annotation(box, pid) for box, pid, _ in annotated],
        }
        for name, (annotated, _) in zip(names, images, strict=True)
    ]
    detections = Detections(
        names=names,
        det_count=np.array([len(detected) for _, detected in images]),
        det=np.array([[*box, 0.9] for box, _ in found], dtype=np.float32).reshape(-1, 5),
        emb=np.array([row(s) for _, s in found], dtype=np.float32).reshape(-1, 2),
        query_emb=np.array([row(1)] * len(queries), dtype=np.float32),
        gt_count=np.array([len(annotated) for annotated, _ in images]),
        gt_emb=np.array([row(s) for _, _, s in people], dtype=np.float32).reshape(-1, 2),
    )
    asked = [Query(names[0], PERSON, person_id) for person_id in queries]
    return detections, records, open_gallery_protocol("made", records, asked)


def bare(detections: Detections) -> Detections:
    return replace(detections, gt_count=None, gt_emb=None)


# A truth found, one missed, one badly placed; another person and an unlabelled one.
GOLDEN: tuple[Image, ...] = (
    QUERY_FRAME,
    ([(PERSON, 1, 0.4)], [(PERSON, 0.5)]),
    ([(PERSON, 1, 0.95)], []),
    ([(PERSON, 1, 0.3)], [(LOOSE, 0.1)]),
    ([(ELSEWHERE, 2, 0.4)], [(ELSEWHERE, 0.9)]),
    ([(ELSEWHERE, -1, 0.4)], [(ELSEWHERE, 0.2)]),
)


def test_by_hand_with_embeddings_of_annotated_boxes() -> None:
    split = split_errors(*make_world(*GOLDEN))
    counts = (split.num_truths, split.num_matched, split.num_missed, split.num_badly_placed)
    assert counts == (3, 1, 1, 1)
    # 0.9 wrong, 0.5 right.
    assert split.mean_ap == pytest.approx(100 * (1 / 2) / 3)
    # 0.95 right, 0.9 wrong, 0.5 right.
    assert split.missed_mended == pytest.approx(100 * (1 + 2 / 3) / 3)
    # 0.9 wrong, 0.5 right, 0.3 right, with the annotated box's embedding.
    assert split.placement_mended == pytest.approx(100 * (1 / 2 + 2 / 3) / 3)
    assert split.ranking_mended == pytest.approx(100 / 3)
    assert split.embedded
    assert split.num_left_out == 0


def test_by_hand_without_them() -> None:
    detections, records, protocol = make_world(*GOLDEN)
    split = split_errors(bare(detections), records, protocol)
    # The missed truth is out of the denominator.
    assert split.missed_mended == pytest.approx(100 * (1 / 2) / 2)
    # 0.9 wrong, 0.5 right, 0.2 wrong, 0.1 right: the detection's own embedding.
    assert split.placement_mended == pytest.approx(100 * (1 / 2 + 2 / 4) / 3)
    assert not split.embedded
    assert split.num_left_out == 1


def test_as_dict() -> None:
    split = split_errors(*make_world(*GOLDEN))
    content = json.loads(json.dumps(split.as_dict(), allow_nan=False))
    assert content["mAP_ranking_mended"] == pytest.approx(100 / 3)
    assert content["truths"] == {
        "all": 3,
        "matched": 1,
        "missed": 1,
        "badly_placed": 1,
        "repeated": 0,
    }
    assert content["first_wrong_queries"] == 1
    assert content["first_wrong"] == dict.fromkeys(FIRST_WRONG_KINDS, 0) | {"other_person": 100}


def test_all_missed_without_embeddings() -> None:
    detections, records, protocol = make_world(QUERY_FRAME, ([(PERSON, 1, 0.4)], []))
    content = split_errors(bare(detections), records, protocol).as_dict()
    assert (content["mAP"], content["mAP_missed_mended"]) == (0, None)
    assert set(content["first_wrong"].values()) == {None}
    assert split_errors(detections, records, protocol).missed_mended == 100


def test_mended_detections_are_there_for_all_queries() -> None:
    # Person 2 is found at 0.5; mending the detector on person 1 puts 0.9 above.
    images = (
        ([(PERSON, 1, 1.0), (ELSEWHERE, 2, 1.0)], []),
        ([(ELSEWHERE, 2, 0.4)], [(ELSEWHERE, 0.5)]),
        ([(PERSON, 1, 0.9)], []),
    )
    split = split_errors(*make_world(*images, queries=(1, 2)))
    assert split.mean_ap == 50
    assert split.missed_mended == pytest.approx(100 * (1 + 1 / 2) / 2)


def test_a_detection_below_the_threshold_is_not_there() -> None:
    detections, records, protocol = make_world(QUERY_FRAME, ([(PERSON, 1, 0.4)], [(LOOSE, 0.5)]))
    detections.det[0, 4] = 0.4
    assert split_errors(detections, records, protocol).num_missed == 1
    split = split_errors(detections, records, protocol, score_thresh=0.4)
    assert (split.num_badly_placed, split.placement_mended) == (1, 100)


def test_weighting_reaches_the_mended_search() -> None:
    images = (QUERY_FRAME, ([(PERSON, 1, 0.9)], []), ([], [(ELSEWHERE, 0.95)]))
    detections, records, protocol = make_world(*images)
    # 0.95 times the score of 0.9 is below 0.9 times the score of 1.
    assert split_errors(detections, records, protocol).missed_mended == 50
    assert split_errors(detections, records, protocol, weighted=True).missed_mended == 100


def test_a_detection_on_somebody_else_makes_no_truth_badly_placed() -> None:
    people = [(PERSON, 1, 0.9), (NEXT, 2, 0.4)]
    detections, records, protocol = make_world(QUERY_FRAME, (people, [(NEXT, 0.5)]))
    split = split_errors(detections, records, protocol)
    assert (split.num_missed, split.num_badly_placed) == (1, 0)
    # The neighbour's detection stays where it is.
    both = replace(protocol, queries=(protocol.queries[0], Query("s0.jpg", PERSON, 2)))
    truth = Gallery(None, np.array([0]), np.array([1]), np.array([NEXT]))
    both = replace(both, galleries=(protocol.galleries[0], truth))
    twice = replace(detections, query_emb=np.repeat(detections.query_emb, 2, axis=0))
    assert split_errors(twice, records, both).placement_mended == split.mean_ap + 50


def test_one_loose_detection_belongs_to_one_person() -> None:
    # It overlaps both; person 2 more.
    between = (10.0, 105.0, 50.0, 160.0)
    people = [(PERSON, 1, 0.9), ((10.0, 120.0, 50.0, 220.0), 2, 0.9)]
    images = (([(PERSON, 1, 1), (ELSEWHERE, 2, 1)], []), (people, [(between, 0.5)]))
    split = split_errors(*make_world(*images, queries=(1, 2)), background_iou=0.01)
    assert (split.num_missed, split.num_badly_placed) == (1, 1)
    assert (split.missed_mended, split.placement_mended) == (50, 50)


def test_a_detection_on_a_small_person_is_not_moved_to_a_larger_one() -> None:
    # IoU 0.38 with the small one, which is enough for its size, and 0.42 with the large one, for
    # which it is not.
    small, large, found = (0.0, 0.0, 8.0, 8.0), (0.0, 0.0, 20.0, 20.0), (0.0, 0.0, 13.0, 13.0)
    people = [(small, 1, 0.9), (large, 2, 0.9)]
    images = (([(PERSON, 1, 1), (ELSEWHERE, 2, 1)], []), (people, [(found, 0.5)]))
    split = split_errors(*make_world(*images, queries=(1, 2)))
    assert (split.num_matched, split.num_missed, split.num_badly_placed) == (1, 1, 0)
    assert split.placement_mended == split.mean_ap == 50


@pytest.mark.parametrize(
    ("kind", "images"),
    [
        ("other_person", [([(ELSEWHERE, 2, 0.4)], [(ELSEWHERE, 0.9)])]),
        ("unlabelled", [([(ELSEWHERE, -1, 0.4)], [(ELSEWHERE, 0.9)])]),
        ("background", [([(PERSON, 2, 0.4)], [(ELSEWHERE, 0.9)])]),
        ("second_box", [([(PERSON, 1, 0.4)], [(PERSON, 0.95), (PERSON, 0.9)])]),
        ("badly_placed", [([(PERSON, 1, 0.4)], [(PERSON, 0.95), (LOOSE, 0.9)])]),
    ],
)
def test_kind_of_the_first_wrong_answer(kind: str, images: list[Image]) -> None:
    # A second wrong one, of another kind, comes before the last right one.
    later = [(ELSEWHERE, 0.7)] if kind != "background" else [(PERSON, 0.7)]
    last: Image = ([(PERSON, 1, 0.4)], [(PERSON, 0.5)])
    people = [(PERSON, 2, 0.4)]
    split = split_errors(*make_world(QUERY_FRAME, *images, (people, later), last))
    assert split.first_wrong == dict.fromkeys(FIRST_WRONG_KINDS, 0) | {kind: 1}


def test_a_wrong_answer_below_all_right_ones_does_not_count() -> None:
    images = (QUERY_FRAME, ([(PERSON, 1, 0.4)], [(PERSON, 0.9), (ELSEWHERE, 0.5)]))
    assert sum(split_errors(*make_world(*images)).first_wrong.values()) == 0


def test_a_repeated_listing_is_no_error_of_the_detector() -> None:
    detections, records, protocol = make_world(QUERY_FRAME, ([(PERSON, 1, 0.4)], [(PERSON, 0.9)]))
    twice = Gallery(np.array([1, 1]), NO_IMAGES, np.array([1, 1]), np.array([PERSON, PERSON]))
    split = split_errors(detections, records, replace(protocol, galleries=(twice,)))
    assert (split.num_truths, split.num_matched, split.num_repeated) == (2, 1, 1)
    assert split.mean_ap == split.missed_mended == split.ranking_mended == 50


def test_a_copy_of_an_image_is_found_and_missed_by_itself() -> None:
    images = (QUERY_FRAME, ([(PERSON, 1, 0.4)], [(PERSON, 0.9)]), ([(PERSON, 1, 0.4)], []))
    detections, records, protocol = make_world(*images)
    twice = Gallery(
        np.array([1, 1, 2, 2]), NO_IMAGES, np.array([1, 1, 2, 2]), np.array([PERSON] * 4)
    )
    protocol = replace(protocol, galleries=(twice,))
    split = split_errors(detections, records, protocol, repeats="copies")
    assert (split.num_truths, split.num_matched, split.num_missed) == (4, 2, 2)
    assert (split.num_repeated, split.mean_ap, split.missed_mended) == (0, 50, 100)
    without = split_errors(bare(detections), records, protocol, repeats="copies")
    assert (without.num_left_out, without.missed_mended) == (2, 100)


def test_each_of_two_boxes_of_a_person_in_an_image() -> None:
    images = (QUERY_FRAME, ([(PERSON, 1, 0.8), (ELSEWHERE, 1, 0.7)], [(PERSON, 0.9)]))
    detections, records, protocol = make_world(*images)
    both = Gallery(None, np.array([0]), np.array([1, 1]), np.array([PERSON, ELSEWHERE]))
    protocol = replace(protocol, galleries=(both,))
    split = split_errors(detections, records, protocol, repeats="each")
    assert (split.num_truths, split.num_matched, split.num_missed) == (2, 1, 1)
    assert (split.mean_ap, split.missed_mended, split.ranking_mended) == (50, 100, 50)


@pytest.mark.parametrize(("shift", "left_out"), [(1, 0), (5, 1)])
def test_a_truth_is_an_annotated_box_up_to_rounding(shift: float, left_out: int) -> None:
    detections, records, protocol = make_world(QUERY_FRAME, ([(PERSON, 1, 0.4)], []))
    truth = np.array([PERSON]) + [0, 0, shift, 0]
    gallery = replace(protocol.galleries[0], truth_boxes=truth)
    # The same truth of two queries.
    protocol = replace(protocol, queries=protocol.queries * 2, galleries=(gallery, gallery))
    detections = replace(detections, query_emb=np.repeat(detections.query_emb, 2, axis=0))
    split = split_errors(detections, records, protocol)
    assert split.num_missed == 2
    assert split.num_left_out == 2 * left_out
    assert split.embedded
    assert np.isnan(split.missed_mended) if left_out else split.missed_mended == 100


def test_a_person_whom_nobody_annotated_beside_others() -> None:
    # In image 1 the truth of person 1 has no annotated box; the rows of later images move on.
    images = (
        ([(PERSON, 1, 1.0), (PERSON, 2, 1.0)], []),
        ([(ELSEWHERE, 2, 0.8)], []),
        ([(ELSEWHERE, -1, 0.1), (PERSON, 2, 0.9)], [(ELSEWHERE, 0.5)]),
    )
    detections, records, protocol = make_world(*images, queries=(1, 2))
    unknown = Gallery(None, np.array([0]), np.array([1]), np.array([PERSON]))
    protocol = replace(protocol, galleries=(unknown, protocol.galleries[1]))
    split = split_errors(detections, records, protocol)
    assert (split.num_missed, split.num_left_out) == (3, 1)
    # Person 1 is out of the mean; both boxes of person 2 come before the other detection.
    assert (split.mean_ap, split.missed_mended) == (0, 100)


def test_errors() -> None:
    detections, records, protocol = make_world(*GOLDEN)
    for iou in (0, 0.5, math.nan):
        with pytest.raises(KdpsError, match="background_iou"):
            split_errors(detections, records, protocol, background_iou=iou)
    with pytest.raises(KdpsError, match="but the test set has"):
        split_errors(detections, records[::-1], protocol)
    none = replace(detections, query_emb=np.zeros((0, 2), np.float32))
    with pytest.raises(KdpsError, match="hold 0 query embeddings"):
        split_errors(none, records, protocol)
    records[1]["annotations"] *= 2
    with pytest.raises(KdpsError, match=r"s1\.jpg has 2 annotated boxes"):
        split_errors(detections, records, protocol)
    images = (QUERY_FRAME, ([], [(PERSON, 0.4)]))
    with pytest.raises(KdpsError, match="no query has the person"):
        split_errors(*make_world(*images))


BOXES = [PERSON, LOOSE, NEXT, ELSEWHERE, (10.0, 10.0, 30.0, 110.0), (10.0, 10.0, 18.0, 18.0)]
boxes = st.sampled_from(BOXES)
similarities = st.integers(0, 10).map(lambda n: n / 10)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Detections, list[dict[str, Any]], SearchProtocol]:
    """Persons 1 and 2 are in the first image, searched in open galleries or in lists."""
    images: list[Image] = [([(PERSON, 1, 1.0), (ELSEWHERE, 2, 1.0)], [])]
    for _ in range(draw(st.integers(1, 4))):
        here = draw(st.lists(boxes, max_size=3, unique=True))
        ids = draw(st.permutations([1, 2, -1]))
        people = [(box, pid, draw(similarities)) for box, pid in zip(here, ids, strict=False)]
        images.append((people, draw(st.lists(st.tuples(boxes, similarities), max_size=4))))
    images.append(([(NEXT, 1, draw(similarities))], draw(st.lists(st.tuples(boxes, similarities)))))
    detections, records, protocol = make_world(*images, queries=(1, 2))
    if draw(st.booleans()):
        listed = np.arange(1, len(images))
        galleries = [replace(g, images=listed, excluded=NO_IMAGES) for g in protocol.galleries]
        protocol = replace(protocol, galleries=tuple(galleries))
    return detections if draw(st.booleans()) else bare(detections), records, protocol


def overlap(a: Box, b: Box) -> float:
    w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return w * h / (area - w * h)


def reference_counts(
    detections: Detections, records: list[dict[str, Any]], protocol: SearchProtocol
) -> tuple[int, int, int]:
    """Matched, missed and badly placed truths from the definition, one after the other."""
    offsets = detections.offsets
    found = [
        [tuple(map(float, d[:4])) for d in detections.det[offsets[i] : offsets[i + 1]]]
        for i in range(len(records))
    ]
    truths = [
        (int(image), tuple(map(float, box)))
        for gallery in protocol.galleries
        for image, box in zip(gallery.truth_images, gallery.truth_boxes, strict=True)
    ]

    def is_on(det: Box, truth: Box) -> bool:
        w, h = truth[2] - truth[0], truth[3] - truth[1]
        return overlap(det, truth) >= min(0.5, w * h / ((w + 10) * (h + 10)))

    counts = {"matched": 0, "missed": 0, "badly_placed": 0}
    for image, box in truths:
        people = [tuple(a["bbox"]) for a in records[image]["annotations"]]
        own = False
        for det in found[image]:
            nearest = max(people, key=lambda person, det=det: overlap(det, person))
            taken = any(i == image and is_on(det, other) for i, other in truths)
            own |= nearest == box and overlap(det, box) >= 0.1 and not taken
        matched = any(is_on(det, box) for det in found[image])
        counts["matched" if matched else "badly_placed" if own else "missed"] += 1
    return counts["matched"], counts["missed"], counts["badly_placed"]


@settings(max_examples=200)
@given(worlds(), st.booleans(), st.sampled_from(REPEATS))
def test_counts_and_mended_numbers_agree(world: Any, weighted: bool, repeats: Repeats) -> None:
    split = split_errors(*world, weighted=weighted, repeats=repeats)
    detections, records, protocol = world
    result = score_search(detections, protocol, weighted=weighted, repeats=repeats)
    assert split.mean_ap == pytest.approx(result.metrics()["mAP"])
    assert split.num_matched == sum(len(ranks) for ranks in result.ranks)
    counts = (split.num_matched, split.num_missed, split.num_badly_placed)
    assert counts == reference_counts(*world)
    assert split.num_repeated == 0
    assert split.ranking_mended >= split.mean_ap - 1e-9
    if not split.num_missed:
        assert split.missed_mended == split.mean_ap
    if not split.num_badly_placed:
        assert split.placement_mended == split.mean_ap
    if split.embedded:
        assert split.num_left_out == 0
    else:
        assert split.num_left_out == split.num_missed
        assert np.isnan(split.missed_mended) or split.missed_mended >= split.mean_ap - 1e-9


@settings(max_examples=50)
@given(worlds())
def test_perfect_detections_leave_the_ranking_only(world: Any) -> None:
    detections, records, protocol = world
    if detections.gt_emb is None:
        return
    split = split_errors(annotated_as_detections(detections, records), records, protocol)
    assert split.num_matched == split.num_truths
    assert split.missed_mended == split.placement_mended == split.mean_ap
    assert split.ranking_mended == 100
