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
from kdps.evaluation.entries import REPEATS, Repeats
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
    queries: list[WorldQuery]


@dataclass
class WorldQuery:
    row: int | None  # None: the model could not embed it
    gallery: list[int] | None
    excluded: list[int]
    truths: list[tuple[int, tuple[int, ...]]]
    ignored: list[tuple[int, tuple[int, ...]]]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    images = draw(st.lists(detection_lists, min_size=1, max_size=5))
    index = st.integers(0, len(images) - 1)
    queries = []
    closed_only = draw(st.booleans())
    for _ in range(draw(st.integers(1, 3))):
        if closed_only or draw(st.booleans()):
            gallery, excluded = draw(st.lists(index, max_size=7)), []
            listed = list(gallery)
        else:
            gallery, excluded = None, draw(st.lists(index, max_size=2, unique=True))
            listed = [i for i in range(len(images)) if i not in excluded]
        # A truth per listing, so that an image listed twice may hold two of them, or yet one more.
        truths = [(i, draw(boxes)) for i in listed if draw(st.booleans())]
        truths += [(i, draw(boxes)) for i in listed[:1] if draw(st.booleans())]
        ignored = [(i, draw(boxes)) for i in set(listed) if draw(st.integers(0, 3)) == 0]
        row = draw(rows) if draw(st.integers(0, 9)) else None
        queries.append(WorldQuery(row, gallery, excluded, truths, ignored))
    return World(images, queries)


def as_arrays(world: World) -> tuple[Detections, SearchProtocol]:
    found = [item for image in world.images for item in image]
    names = tuple(f"s{i}" for i in range(len(world.images)))
    detections = Detections(
        names=names,
        det_count=np.array([len(image) for image in world.images]),
        det=np.array([[*box, score] for box, score, _ in found], np.float32).reshape(-1, 5),
        emb=ROWS[[row for _, _, row in found]].reshape(-1, 4),
        query_emb=np.array(
            [np.zeros(4) if query.row is None else ROWS[query.row] for query in world.queries],
            np.float32,
        ),
    )
    galleries = [
        Gallery(
            images=None if query.gallery is None else np.array(query.gallery, dtype=np.int64),
            excluded=np.array(query.excluded, dtype=np.int64),
            **places(query.truths, "truth"),
            **places(query.ignored, "ignored"),
        )
        for query in world.queries
    ]
    queries = [Query(names[0], BOXES[0], i) for i in range(len(galleries))]
    cams = np.zeros(len(names), dtype=np.int64)
    return detections, SearchProtocol("world", names, cams, tuple(queries), tuple(galleries))


def places(pairs: list[tuple[int, tuple[int, ...]]], name: str) -> dict[str, np.ndarray]:
    return {
        f"{name}_images": np.array([image for image, _ in pairs], dtype=np.int64),
        f"{name}_boxes": np.array([box for _, box in pairs], dtype=float).reshape(-1, 4),
    }


def overlap(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return w * h / (area - w * h)


def is_on(box: tuple[int, ...], truth: tuple[int, ...]) -> bool:
    w, h = truth[2] - truth[0], truth[3] - truth[1]
    return overlap(box, truth) >= min(0.5, w * h / ((w + 10) * (h + 10)))


def entries_of(world: World, query: WorldQuery, repeats: str) -> list[tuple[int, list]]:
    """Images in the order in which they are ranked, with the truths that each stands against."""
    gallery = query.gallery
    if gallery is None:
        gallery = [i for i in range(len(world.images)) if i not in query.excluded]
    truths = {i: [box for image, box in query.truths if image == i] for i in gallery}
    if repeats == "first":
        return [(i, truths[i][:1]) for i in sorted(truths)]
    if repeats == "each":
        return [(i, truths[i]) for i in sorted(truths)]
    entries = []
    for place, i in enumerate(gallery):
        # The second listing takes the second truth, the last listing all that are left.
        nth = gallery[:place].count(i)
        is_last = i not in gallery[place + 1 :]
        entries.append((i, truths[i][nth:] if is_last else truths[i][nth : nth + 1]))
    return entries


def reference(
    world: World, number: int, score_thresh: float, weighted: bool, repeats: str
) -> tuple[float, list[int], list[bool]]:
    """AP times recall, ranks of the positives and the labels in ranked order."""
    query = world.queries[number]
    similarities, labels = [], []
    for i, truths in entries_of(world, query, repeats):
        kept = [d for d in world.images[i] if d[1] >= score_thresh and query.row is not None]
        kept = [d for d in kept if not any(is_on(d[0], b) for j, b in query.ignored if j == i)]
        here = [float(ROWS[d[2]] @ ROWS[query.row]) * (d[1] if weighted else 1.0) for d in kept]
        pairs = [
            (-here[j], t, j)
            for t, truth in enumerate(truths)
            for j, d in enumerate(kept)
            if is_on(d[0], truth)
        ]
        served, positives = set(), set()
        for _, t, j in sorted(pairs):
            if t not in served and j not in positives:
                served.add(t)
                positives.add(j)
        similarities += here
        labels += [j in positives for j in range(len(kept))]
    order = sorted(range(len(labels)), key=lambda i: -similarities[i])
    ranked = [labels[i] for i in order]
    ranks = [rank for rank, label in enumerate(ranked, 1) if label]
    if not query.truths:
        return float("nan"), ranks, ranked
    if not any(labels):
        return 0.0, ranks, ranked
    ap = average_precision_score(labels, similarities) * sum(labels) / len(query.truths)
    return ap, ranks, ranked


@settings(max_examples=500)
@given(
    worlds(),
    st.sampled_from([0.25, 0.5]),
    st.booleans(),
    st.sampled_from(REPEATS),
    st.integers(0, 5),
)
def test_equals_the_slow_reference(
    world: World, score_thresh: float, weighted: bool, repeats: Repeats, top: int
) -> None:
    assume(any(query.truths for query in world.queries))
    if repeats == "copies":
        # Which copy an ignored box is in is not defined.
        assume(not any(query.ignored for query in world.queries))
    result = score_search(
        *as_arrays(world), score_thresh=score_thresh, weighted=weighted, repeats=repeats, top=top
    )
    for number in range(len(world.queries)):
        ap, ranks, ranked = reference(world, number, score_thresh, weighted, repeats)
        assert result.ap[number] == pytest.approx(ap, abs=1e-12, nan_ok=True)
        assert result.ranks[number].tolist() == ranks
        assert [bool(result.hits(k)[number]) for k in (1, 5, 10)] == [
            any(ranked[:k]) for k in (1, 5, 10)
        ]
        length = min(top, len(ranked))
        assert result.counted[number, :length].tolist() == ranked[:length]
        assert (result.top[number, :length] >= 0).all()
        assert (result.top[number, length:] == -1).all()
