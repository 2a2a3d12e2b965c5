# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Context matching: by hand, against trying every matching, and SeqNet's own numbers."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdps.data.datasets.cuhk_sysu import load_cuhk_sysu_protocol
from kdps.data.datasets.prw import load_prw_protocol
from kdps.data.protocol import SearchProtocol
from kdps.data.variants import cross_camera
from kdps.errors import KdpsError
from kdps.evaluation.context_matching import DEFAULT_K, ContextMatching
from kdps.evaluation.detections_file import load_detections
from kdps.evaluation.search import TOP_K, score_search
from kdps.structures.detections import Detections

Generate = Callable[[str], Path]

# The query, and two who were seen with it. Similarities to them are the first three entries.
QUERY, COMPANION, THIRD = np.eye(3, 4, dtype=np.float32)


def like(query: float, companion: float = 0.0, third: float = 0.0) -> np.ndarray:
    """A unit row with these similarities to the three."""
    rest = 1 - query**2 - companion**2 - third**2
    return np.array([query, companion, third, np.sqrt(rest)], dtype=np.float32)


def detections_of(
    images: Sequence[Sequence[np.ndarray]],
    persons: Sequence[np.ndarray] = (QUERY, COMPANION, THIRD),
    score: float = 1.0,
) -> Detections:
    emb = np.array([row for image in images for row in image], dtype=np.float32).reshape(-1, 4)
    boxes = np.tile(np.float32([0, 0, 10, 20, score]), (len(emb), 1))
    return Detections(
        names=tuple(f"s{i}.jpg" for i in range(len(images))),
        det_count=np.array([len(image) for image in images]),
        det=boxes,
        emb=emb,
        query_emb=persons[0][None],
        qdet_count=np.array([len(persons)]),
        qdet=np.tile(np.float32([0, 0, 10, 20, 1]), (len(persons), 1)),
        qdet_emb=np.array(persons),
    )


def refine(
    detections: Detections, rows: Sequence[int] | None = None, **options: Any
) -> list[float]:
    """Similarities of a whole gallery, or of some rows, after matching."""
    rows = np.arange(len(detections.det)) if rows is None else np.array(rows, dtype=np.int64)
    similarity = (detections.emb[rows] @ detections.query_emb[0]).astype(np.float32)
    if options.get("weighted"):
        similarity *= detections.det[rows, 4]
    before = similarity.copy()
    refined = ContextMatching(detections, **{"k1": 10, "k2": 3, **options})(0, rows, similarity)
    np.testing.assert_array_equal(similarity, before)
    assert refined.dtype == np.float32
    assert refined.shape == rows.shape
    return pytest.approx(refined.tolist())


def test_the_largest_similarity_of_the_matching_replaces_that_of_the_query() -> None:
    assert refine(detections_of([[like(0.9), like(0, 0.7)]])) == [0.9, 0]
    assert refine(detections_of([[like(0.6), like(0, 0.8)]])) == [0.8, 0]


def test_the_matching_decides_which_detection_is_the_query() -> None:
    # The first looks most like the query, but more like its companion: .5 + .9 beats .6 + .1.
    assert refine(detections_of([[like(0.6, 0.75), like(0.5, 0.1)]])) == [0.6, 0.75]


def test_an_unmatched_query_changes_nothing() -> None:
    assert refine(detections_of([[like(0.3, 0.9)]])) == [0.3]
    assert refine(detections_of([[like(0.9, 0.3)]])) == [0.9]


def test_a_query_seen_alone_changes_nothing() -> None:
    images = [[like(0.6), like(0.2, 0.9)], [like(0.5)]]
    assert refine(detections_of(images, persons=(QUERY,))) == [0.6, 0.2, 0.5]


def test_only_so_many_persons_take_part() -> None:
    detections = detections_of([[like(0.6), like(0, 0.7), like(0, 0, 0.9)]])
    assert refine(detections, k2=3) == [0.9, 0, 0]
    assert refine(detections, k2=2) == [0.7, 0, 0]
    assert refine(detections, k2=1) == [0.6, 0, 0]


def test_only_the_images_of_the_most_similar_detections_are_matched() -> None:
    images = [[like(0.5), like(0, 0.9)], [], [like(0.7), like(0.6), like(0, 0.8)]]
    detections = detections_of(images)
    # The two most similar detections are in the same image.
    assert refine(detections, k1=2) == [0.5, 0, 0.8, 0.6, 0]
    assert refine(detections, k1=3) == [0.9, 0, 0.8, 0.6, 0]


def test_of_equally_similar_detections_the_first_in_the_gallery_counts() -> None:
    image = [like(0.5), like(0, 0.9)]
    detections = detections_of([image] * 3)
    assert refine(detections, k1=2) == [0.9, 0, 0.9, 0, 0.5, 0]
    # The order is that of the gallery, not of the images.
    assert refine(detections, rows=[4, 5, 0, 1, 2, 3], k1=1) == [0.9, 0, 0.5, 0, 0.5, 0]


def test_all_similarities_equal() -> None:
    assert refine(detections_of([[like(0.5)] * 4] * 3)) == [0.5] * 12


def test_only_the_rows_given_take_part() -> None:
    detections = detections_of([[like(0.6), like(0, 0.9)], [like(0.5), like(0, 0.8)]])
    assert refine(detections, rows=[0, 2, 3]) == [0.6, 0.8, 0]


def test_both_copies_of_an_image_get_the_same() -> None:
    detections = detections_of([[like(0.6), like(0, 0.9)], [like(0.5), like(0, 0.8)]])
    assert refine(detections, rows=[2, 3, 0, 1, 2, 3]) == [0.8, 0, 0.9, 0, 0.8, 0]


def test_weighted() -> None:
    detections = detections_of([[like(0.6), like(0, 0.8)]], score=0.5)
    assert refine(detections, weighted=True) == [0.4, 0]


def test_average() -> None:
    assert refine(detections_of([[like(0.6), like(0, 0.8)]]), average=True) == [0.7, 0]


def test_an_empty_gallery() -> None:
    assert refine(detections_of([[like(0.6)], []]), rows=[]) == []


def test_persons_of_the_right_query() -> None:
    detections = detections_of([[like(0.6), like(0, 0.8)], [like(0.9), like(0, 0.8)]])
    detections = replace(
        detections,
        query_emb=np.stack([COMPANION, QUERY]),
        qdet_count=np.array([1, 2]),
        qdet_emb=np.stack([COMPANION, QUERY, COMPANION]),
    )
    matching = ContextMatching(detections, k1=10, k2=3)
    refined = matching(0, np.array([2, 3]), np.float32([0, 0.8]))
    assert refined.tolist() == pytest.approx([0, 0.8])
    refined = matching(1, np.array([0, 1]), np.float32([0.6, 0]))
    assert refined.tolist() == pytest.approx([0.8, 0])


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 4), st.booleans())
def test_equals_trying_every_matching(seed: int, k1: int, k2: int, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    images = [list(unit(rng, rng.integers(0, 5))) for _ in range(rng.integers(1, 5))]
    detections = detections_of(images, persons=unit(rng, rng.integers(1, 6)))
    detections.det[:, 4] = rng.uniform(0.5, 1, len(detections.det))
    rows = np.flatnonzero(rng.random(len(detections.det)) < 0.8)
    emb = detections.emb * (detections.det[:, 4:] if weighted else 1)
    similarity = (emb[rows] @ detections.query_emb[0]).astype(np.float32)
    matching = ContextMatching(detections, k1=k1, k2=k2, weighted=weighted)

    expected = similarity.copy()
    images_of = detections.image_of_det[rows]
    for image in {images_of[i] for i in np.argsort(-similarity)[:k1]}:
        here = np.flatnonzero(images_of == image)
        weights = detections.qdet_emb[:k2] @ emb[rows[here]].T
        pairs = max(every_matching(*weights.shape), key=lambda m: sum(weights[p] for p in m))
        for person, detection in pairs:
            if person == 0:
                expected[here[detection]] = max(weights[pair] for pair in pairs)
    np.testing.assert_allclose(matching(0, rows, similarity), expected, atol=1e-6)


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    rows = rng.standard_normal((count, 4))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def every_matching(rows: int, columns: int) -> list[list[tuple[int, int]]]:
    if rows > columns:
        return [[(r, c) for c, r in pairs] for pairs in every_matching(columns, rows)]
    return [list(enumerate(chosen)) for chosen in itertools.permutations(range(columns), rows)]


def test_needs_the_persons_of_the_query_images() -> None:
    detections = detections_of([[like(0.6)]])
    without = replace(detections, qdet_count=None, qdet=None, qdet_emb=None)
    with pytest.raises(KdpsError, match="qdet_count, qdet and qdet_emb"):
        ContextMatching(without, k1=10, k2=3)
    empty = replace(detections, query_emb=np.stack([QUERY, QUERY]), qdet_count=np.array([3, 0]))
    with pytest.raises(KdpsError, match="qdet_count is 0 at query 1"):
        ContextMatching(empty, k1=10, k2=3)


@pytest.mark.parametrize("k", [{"k1": 0, "k2": 3}, {"k1": 10, "k2": 0}])
def test_refuses_to_match_nothing(k: dict[str, int]) -> None:
    with pytest.raises(KdpsError, match="of 1 or more"):
        ContextMatching(detections_of([[like(0.6)]]), **k)


@functools.cache
def load_protocol(gallery: str, root: Path) -> SearchProtocol:
    if gallery.startswith("G"):
        return load_cuhk_sysu_protocol(root, int(gallery[1:]))
    protocol = load_prw_protocol(root)
    return protocol if gallery == "allcam" else cross_camera(protocol)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("name", "gallery"),
    [
        ("cuhk_tiny", "G50"),
        ("cuhk_medium", "G50"),
        ("cuhk_medium", "G100"),
        ("cuhk_medium", "G500"),
        ("prw_tiny", "allcam"),
        ("prw_tiny", "crosscam"),
        ("prw_medium", "allcam"),
        ("prw_medium", "crosscam"),
    ],
)
def test_equals_seqnet(
    name: str, gallery: str, weighted: bool, evalkit: Path, kit_root: Generate
) -> None:
    mode = f"{gallery}.det.cws{int(weighted)}.cbgm1"
    entry = json.loads((evalkit / "expected.json").read_text())[f"{name}_0"]["compat_seqnet"][mode]
    with np.load(evalkit / "expected_per_query.npz") as file:
        per_query = file[f"{name}_0/compat_seqnet/{mode}"]
    k1, k2 = DEFAULT_K["prw" if name.startswith("prw") else "cuhk_sysu"]
    assert (k1, k2) == (entry["k1"], entry["k2"])
    root = kit_root(name)
    detections = load_detections(root / "outputs.npz")
    result = score_search(
        detections,
        load_protocol(gallery, root),
        score_thresh=entry["det_thresh"],
        weighted=weighted,
        refine=ContextMatching(detections, k1=k1, k2=k2, weighted=weighted),
    )
    assert result.metrics()["mAP"] == pytest.approx(100 * entry["mAP"], abs=1e-7)
    np.testing.assert_allclose(result.ap, per_query[:, 0], rtol=0, atol=1e-9)
    for i, k in enumerate(TOP_K):
        if entry["topk_order_sensitive"][i] == 0:
            np.testing.assert_array_equal(result.hits(k), per_query[:, 1 + i] > 0)
            assert result.metrics()[f"top{k}"] == pytest.approx(100 * entry[f"top{k}"])
