# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdps.data.galleries import open_gallery_protocol
from kdps.data.protocol import Query
from kdps.data.records import attach_queries, make_annotation
from kdps.errors import KdpsError

images_of_people = st.lists(st.lists(st.integers(-1, 4), max_size=5), min_size=1, max_size=8)


@given(images=images_of_people, data=st.data())
def test_truths_are_found_as_by_looking_at_every_box(images, data):
    records, box = [], 0
    for index, pids in enumerate(images):
        annotations = []
        for pid in pids:
            box += 1
            annotations.append(make_annotation((box, 0, box + 1, 1), pid))
        records.append({"image_id": f"i{index}", "cam_id": index % 2, "annotations": annotations})
    pid = data.draw(st.integers(0, 4))
    own = data.draw(st.integers(0, len(images) - 1))
    excluded = data.draw(st.sets(st.integers(0, len(images) - 1)))
    query = Query(f"i{own}", (0, 0, 1, 1), pid)

    for left_out, argument in (({own}, None), (excluded, [np.array(sorted(excluded), dtype=int)])):
        gallery = open_gallery_protocol("p", records, [query], argument).galleries[0]
        expected = []
        for index, record in enumerate(records):
            boxes = [a["bbox"] for a in record["annotations"] if a["person_id"] == pid]
            if boxes and index not in left_out:
                expected.append((index, boxes[0]))
        assert set(gallery.excluded.tolist()) == left_out
        assert gallery.truth_images.tolist() == [index for index, _ in expected]
        assert gallery.truth_boxes.tolist() == [b for _, b in expected]
        assert gallery.truth_boxes.shape == (len(expected), 4)


def test_queries_are_attached_to_their_images():
    records = [{"image_id": n, "cam_id": 0, "annotations": []} for n in ("a", "b")]
    queries = [Query("b", (1, 2, 3, 4), 0), Query("b", (5, 6, 7, 8), 1)]
    protocol = open_gallery_protocol("p", records, queries)
    attach_queries(records, protocol)
    assert records[0]["queries"] == []
    assert [(q["query_id"], q["bbox"]) for q in records[1]["queries"]] == [
        (0, [1, 2, 3, 4]),
        (1, [5, 6, 7, 8]),
    ]


def test_a_query_in_an_unknown_image():
    records = [{"image_id": n, "cam_id": 0, "annotations": []} for n in ("a", "b")]
    protocol = open_gallery_protocol("p", records, [Query("b", (1, 2, 3, 4), 0)])
    with pytest.raises(KdpsError, match="p: query 0 is in image 'b', which is not in the test set"):
        attach_queries(records[:1], protocol)
