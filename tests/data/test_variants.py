# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kdps.data.galleries import NO_IMAGES
from kdps.data.protocol import Gallery, Query, SearchProtocol
from kdps.data.records import make_annotation
from kdps.data.variants import (
    cross_camera,
    full_set,
    multi_view,
    restrict_to_cameras,
    strict,
    without_images,
)
from kdps.errors import KdpsError

A, B, C = (0.0, 0.0, 10.0, 20.0), (20.0, 0.0, 30.0, 20.0), (40.0, 0.0, 50.0, 20.0)


def make_protocol(
    images: list[int] | None, truths: list[tuple[int, tuple]], own: int = 0, excluded=()
) -> SearchProtocol:
    """One query of person 7 in one of six images, of the cameras 1, 1, 2, 2, 3, 3."""
    gallery = Gallery(
        images=None if images is None else np.array(images, dtype=np.int64),
        excluded=np.array(excluded, dtype=np.int64),
        truth_images=np.array([image for image, _ in truths], dtype=np.int64),
        truth_boxes=np.array([box for _, box in truths], dtype=np.float64).reshape(-1, 4),
    )
    return SearchProtocol(
        name="p",
        images=tuple(f"s{i}" for i in range(6)),
        cam_ids=np.array([1, 1, 2, 2, 3, 3]),
        queries=(Query(f"s{own}", A, 7),),
        galleries=(gallery,),
    )


def truths_of(protocol: SearchProtocol) -> list[tuple[int, tuple]]:
    gallery = protocol.galleries[0]
    boxes = map(tuple, gallery.truth_boxes.tolist())
    return list(zip(gallery.truth_images.tolist(), boxes, strict=True))


def test_cross_camera_leaves_the_own_camera_out() -> None:
    result = cross_camera(make_protocol(None, [(1, A), (2, B)], excluded=[0]))
    assert result.galleries[0].excluded.tolist() == [0, 1]
    assert truths_of(result) == [(2, B)]
    assert result.name == "p_cross_camera"


def test_cross_camera_of_a_list_shortens_it() -> None:
    result = cross_camera(make_protocol([3, 1, 2, 3], [(1, A), (3, B)]))
    assert result.galleries[0].images.tolist() == [3, 2, 3]
    assert truths_of(result) == [(3, B)]


def test_multi_view_ignores_the_person_but_keeps_the_images() -> None:
    result = multi_view(make_protocol(None, [(1, A), (2, B)], excluded=[0]))
    gallery = result.galleries[0]
    assert gallery.excluded.tolist() == [0]
    assert truths_of(result) == [(2, B)]
    assert gallery.ignored_images.tolist() == [1]
    assert gallery.ignored_boxes.tolist() == [list(A)]


@pytest.mark.parametrize("variant", [cross_camera, multi_view])
def test_one_camera_has_no_others(variant) -> None:
    protocol = make_protocol(None, [(1, A)])
    protocol.cam_ids[:] = 4
    with pytest.raises(KdpsError, match="p: all images are of one camera"):
        variant(protocol)


def test_the_full_set_adds_all_but_the_own_image() -> None:
    result = full_set(make_protocol([4, 2], [(2, B)]), "full")
    gallery = result.galleries[0]
    assert result.name == "full"
    assert gallery.images is None
    assert gallery.excluded.tolist() == [0]
    assert truths_of(result) == [(2, B)]


def test_the_full_set_keeps_an_own_image_that_is_listed() -> None:
    assert full_set(make_protocol([0, 2], [(0, B)]), "full").galleries[0].excluded.tolist() == []


def test_the_full_set_keeps_repeated_images() -> None:
    gallery = full_set(make_protocol([4, 2, 2], [(2, A), (2, B)]), "full").galleries[0]
    assert gallery.images.tolist() == [4, 2, 2, 1, 3, 5]
    assert gallery.truth_images.tolist() == [2, 2]


def records_of(boxes: dict[int, list[tuple]]) -> list[dict]:
    return [
        {
            "image_id": f"s{i}",
            "annotations": [make_annotation(box, 7) for box in boxes.get(i, [])]
            + [make_annotation(C, 8)],
        }
        for i in range(6)
    ]


def test_strict_lists_each_image_and_truth_once_and_not_the_own_image() -> None:
    protocol = make_protocol([0, 3, 2, 3, 2], [(0, A), (3, A), (3, A), (2, A), (2, B)])
    result = strict(protocol, records_of({}))
    assert result.galleries[0].images.tolist() == [2, 3]
    assert truths_of(result) == [(3, A), (2, A), (2, B)]


def test_strict_finds_further_boxes_in_open_galleries() -> None:
    protocol = make_protocol(None, [(1, A), (2, B)])
    result = strict(protocol, records_of({0: [A], 1: [A], 2: [B, A], 4: [C]}))
    # Image 4 is not in the protocol's truths: a protocol may leave out what it wants.
    assert truths_of(result) == [(1, A), (2, B), (2, A)]
    assert result.galleries[0].excluded.tolist() == [0]


def test_some_cameras_of_an_open_gallery() -> None:
    protocol = make_protocol(None, [(1, A), (2, B), (4, C)], excluded=[0])
    result = restrict_to_cameras(protocol, [1])
    assert (result.name, result.images) == ("p_c1", protocol.images)
    assert result.galleries[0].images.tolist() == [1]
    assert result.galleries[0].excluded.tolist() == []
    assert truths_of(result) == [(1, A)]
    result = restrict_to_cameras(protocol, {3, 1})
    assert (result.name, result.galleries[0].images.tolist()) == ("p_c1_c3", [1, 4, 5])
    assert protocol.galleries[0].images is None


def test_some_cameras_of_a_list_keep_order_and_repetitions() -> None:
    result = restrict_to_cameras(make_protocol([4, 3, 1, 3], [(3, A), (1, B), (3, C)]), [2])
    assert result.galleries[0].images.tolist() == [3, 3]
    assert truths_of(result) == [(3, A), (3, C)]


def test_some_cameras_keep_what_is_ignored_in_them() -> None:
    protocol = make_protocol(None, [])
    ignored = np.array([2, 4]), np.array([A, B])
    gallery = replace(protocol.galleries[0], ignored_images=ignored[0], ignored_boxes=ignored[1])
    (result,) = restrict_to_cameras(replace(protocol, galleries=(gallery,)), [3]).galleries
    assert result.ignored_images.tolist() == [4]
    assert result.ignored_boxes.tolist() == [list(B)]


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(KdpsError, match=r"p: no image is of camera 4; there are 1, 2, 3"):
        restrict_to_cameras(make_protocol(None, []), [2, 4])


def test_without_images_forgets_what_was_ignored_there() -> None:
    gallery = Gallery(
        None, NO_IMAGES, NO_IMAGES, np.zeros((0, 4)), np.array([1, 2]), np.ones((2, 4))
    )
    result = without_images(gallery, np.array([2, 5]))
    assert result.excluded.tolist() == [2, 5]
    assert result.ignored_images.tolist() == [1]
    assert result.ignored_boxes.shape == (1, 4)
