# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The search metric against a slow, obvious one written from the protocol's definition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from kdps.data.protocol import Gallery, Query, SearchProtocol
from kdps.evaluation.search import score_search
from kdps.structures.detections import Detections

# Unit rows on a coarse grid: their products are exact, so equal similarities are really equal.
ROWS = np.array(
    [[1, 0, 0, 0], [0, 1, 0, 0], [0.5, 0.5, 0.5, 0.5], [0.5, 0.5, -0.5, -0.5], [-1, 0, 0, 0]],
    dtype=np.float32,
)
# Truth boxes and detections on them, near them and apart, with IoU at and around the threshold.
BOXES = [
    (10, 10, 50, 110),
    (10, 10, 30, 110),
    (10, 10, 29, 110),
    (14, 10, 54, 110),
    (45, 10, 85, 110),
    (10, 10, 22, 30),
    (10, 10, 16, 30),
    (200, 10, 240, 110),
]
boxes = st.sampled_from(BOXES)
rows = st.integers(0, len(ROWS) - 1)
detection_lists = st.lists(st.tuples(boxes, st.sampled_from([0.25, 0.5, 1.0]), rows), max_size=4)


@dataclass
class World:
    images: list[list[tuple[tuple[int, ...], float, int]]]
    queries: list[tuple[int, list[int] | None, list[int], list[tuple[int, tuple[int, ...]]]]]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    images = draw(st.lists(detection_lists, min_size=1, max_size=5))
    index = st.integers(0, len(images) - 1)
    queries = []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            gallery, excluded = draw(st.lists(index, max_size=7)), []
            listed = list(gallery)
        else:
            gallery, excluded = None, draw(st.lists(index, max_size=2, unique=True))
            listed = [i for i in range(len(images)) if i not in excluded]
        # A truth per listing, so that an image listed twice may hold two of them.
        truths = [(i, draw(boxes)) for i in listed if draw(st.booleans())]
        queries.append((draw(rows), gallery, excluded, truths))
    return World(images, queries)


def as_arrays(world: World) -> tuple[Detections, SearchProtocol]:
    found = [item for image in world.images for item in image]
    names = tuple(f"s{i}" for i in range(len(world.images)))
    detections = Detections(
        names=names,
        det_count=np.array([len(image) for image in world.images]),
        det=np.array([[*box, score] for box, score, _ in found], np.float32).reshape(-1, 5),
        emb=ROWS[[row for _, _, row in found]].reshape(-1, 4),
        query_emb=ROWS[[query[0] for query in world.queries]],
    )
    galleries = [
        Gallery(
            images=None if gallery is None else np.array(gallery, dtype=np.int64),
            excluded=np.array(excluded, dtype=np.int64),
            truth_images=np.array([i for i, _ in truths], dtype=np.int64),
            truth_boxes=np.array([box for _, box in truths], dtype=float).reshape(-1, 4),
        )
        for _, gallery, excluded, truths in world.queries
    ]
    queries = [Query(names[0], BOXES[0], i) for i in range(len(galleries))]
    cams = np.zeros(len(names), dtype=np.int64)
    return detections, SearchProtocol("world", names, cams, tuple(queries), tuple(galleries))


def overlap(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return w * h / (area - w * h)


def reference(
    world: World, number: int, score_thresh: float, weighted: bool
) -> tuple[float, list[int], list[bool]]:
    """AP times recall, ranks of the positives and the labels in ranked order."""
    row, gallery, excluded, truths = world.queries[number]
    if gallery is None:
        gallery = [i for i in range(len(world.images)) if i not in excluded]
    similarities, labels = [], []
    for i in sorted(set(gallery)):
        kept = [d for d in world.images[i] if d[1] >= score_thresh]
        here = [float(ROWS[d[2]] @ ROWS[row]) * (d[1] if weighted else 1.0) for d in kept]
        truth = next((box for image, box in truths if image == i), None)
        positive = None
        if truth is not None:
            w, h = truth[2] - truth[0], truth[3] - truth[1]
            threshold = min(0.5, w * h / ((w + 10) * (h + 10)))
            for j in sorted(range(len(kept)), key=lambda j, here=here: -here[j]):
                if overlap(kept[j][0], truth) >= threshold:
                    positive = j
                    break
        similarities += here
        labels += [j == positive for j in range(len(kept))]
    order = sorted(range(len(labels)), key=lambda i: -similarities[i])
    ranked = [labels[i] for i in order]
    ranks = [rank for rank, label in enumerate(ranked, 1) if label]
    if not truths:
        return float("nan"), ranks, ranked
    if not any(labels):
        return 0.0, ranks, ranked
    ap = average_precision_score(labels, similarities) * sum(labels) / len(truths)
    return ap, ranks, ranked


@settings(max_examples=300)
@given(worlds(), st.sampled_from([0.25, 0.5]), st.booleans())
def test_equals_the_slow_reference(world: World, score_thresh: float, weighted: bool) -> None:
    assume(any(truths for *_, truths in world.queries))
    result = score_search(*as_arrays(world), score_thresh=score_thresh, weighted=weighted, top=5)
    for number in range(len(world.queries)):
        ap, ranks, ranked = reference(world, number, score_thresh, weighted)
        assert result.ap[number] == pytest.approx(ap, abs=1e-12, nan_ok=True)
        assert result.ranks[number].tolist() == ranks
        assert [bool(result.hits(k)[number]) for k in (1, 5, 10)] == [
            any(ranked[:k]) for k in (1, 5, 10)
        ]
        length = min(5, len(ranked))
        assert result.counted[number, :length].tolist() == ranked[:length]
        assert (result.top[number, length:] == -1).all()
