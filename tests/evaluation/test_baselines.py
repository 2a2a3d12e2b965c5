# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kdps.data.protocol import Gallery, Query, SearchProtocol
from kdps.data.records import make_annotation
from kdps.errors import KdpsError
from kdps.evaluation.baselines import (
    colour_histogram,
    colour_histograms,
    compare_with_baselines,
    random_embeddings,
)
from kdps.evaluation.search import score_search
from kdps.structures.detections import Detections

COLOURS = [(30, 30, 200), (30, 200, 30), (200, 30, 30)]  # BGR, one per person
NUM_IMAGES = 6


def box_of(person: int) -> tuple[float, float, float, float]:
    return (10.0 + 40 * person, 10.0, 30.0 + 40 * person, 50.0)


@pytest.fixture
def world(tmp_path: Path) -> tuple[Detections, list[dict[str, Any]], SearchProtocol]:
    """Three persons of one colour each, in every image; the model confuses the last two."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(NUM_IMAGES):
        image = rng.integers(90, 110, (60, 140, 3), dtype=np.uint8)
        for person, colour in enumerate(COLOURS):
            x1, y1, x2, y2 = map(int, box_of(person))
            image[y1:y2, x1:x2] = colour
        path = tmp_path / f"s{i}.png"
        cv2.imwrite(str(path), image)
        people = [make_annotation(box_of(p), p) for p in range(3)]
        records.append({"image_id": path.name, "file_name": str(path), "annotations": people})
    emb = np.eye(4, dtype=np.float32)[[0, 1, 1]]
    names = tuple(record["image_id"] for record in records)
    detections = Detections(
        names=names,
        det_count=np.full(NUM_IMAGES, 3),
        det=np.array([[*box_of(p), 0.9] for p in range(3)] * NUM_IMAGES, dtype=np.float32),
        emb=np.tile(emb, (NUM_IMAGES, 1)),
        query_emb=emb,
        gt_count=np.full(NUM_IMAGES, 3),
        gt_emb=np.tile(np.eye(4, dtype=np.float32)[:3], (NUM_IMAGES, 1)),
    )
    others = np.arange(1, NUM_IMAGES)
    protocol = SearchProtocol(
        name="made",
        images=names,
        cam_ids=np.zeros(NUM_IMAGES, dtype=np.int64),
        queries=tuple(Query(names[0], box_of(p), p) for p in range(3)),
        galleries=tuple(
            Gallery(None, np.array([0]), others, np.tile(box_of(p), (len(others), 1)))
            for p in range(3)
        ),
    )
    return detections, records, protocol


def test_rows(world: Any) -> None:
    results = compare_with_baselines(*world)
    mean = {name: result.metrics()["mAP"] for name, result in results.items()}
    # Persons 1 and 2 are one to the model: ties of a right and a wrong one, precision 1/2.
    assert results["model"].ap.tolist() == [1, 0.5, 0.5]
    assert results["histogram"].ap.tolist() == [1, 1, 1]
    assert 20 < mean["random"] < 70
    # The annotated boxes' embeddings differ; query 2 has that of person 1, so that the five of
    # person 2 tie with those of person 0 behind it: precision 5/15.
    assert results["gt_boxes"].ap.tolist() == pytest.approx([1, 1, 1 / 3])


def test_without_embeddings_of_annotated_boxes(world: Any) -> None:
    detections, records, protocol = world
    bare = replace(detections, gt_count=None, gt_emb=None)
    assert list(compare_with_baselines(bare, records, protocol)) == ["model", "random", "histogram"]


def test_all_rows_are_weighted_alike(world: Any) -> None:
    detections, records, protocol = world
    # Weighting by the score puts person 1 before person 2, its equal in embedding.
    detections.det[2::3, 4] = 0.6
    results = compare_with_baselines(detections, records, protocol, weighted=True)
    assert results["model"].ap.tolist() == [1, 1, 0.5]
    histogram = colour_histograms(detections, records, protocol)
    expected = score_search(histogram, protocol, weighted=True)
    np.testing.assert_array_equal(results["histogram"].similarity, expected.similarity)
    # Annotated boxes have a score of 1.
    plain = compare_with_baselines(detections, records, protocol)
    np.testing.assert_array_equal(results["gt_boxes"].ap, plain["gt_boxes"].ap)
    assert np.abs(results["histogram"].similarity - plain["histogram"].similarity).max() > 0.1


def test_random_embeddings_are_seeded_unit_rows(world: Any) -> None:
    first, again, other = (random_embeddings(world[0], seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.emb, again.emb)
    assert np.abs(first.emb - other.emb).max() > 0.1
    np.testing.assert_allclose(np.linalg.norm(first.emb, axis=1), 1, atol=1e-6)
    assert first.query_emb.shape == world[0].query_emb.shape
    assert np.abs(first.emb[:3] - first.query_emb).max() > 0.1


def test_histogram_by_hand() -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[:4, 4:] = (255, 0, 40)
    upper, lower = colour_histogram(image, (1, 0, 7, 8)).reshape(2, 8, 8, 8)
    # Columns 2 to 5 count: above, two of four are coloured; below, all are black.
    assert upper[0, 0, 0] == pytest.approx(0.5)
    assert upper[7, 0, 1] == pytest.approx(0.5)
    assert lower[0, 0, 0] == pytest.approx(np.sqrt(0.5))
    assert np.count_nonzero(upper) + np.count_nonzero(lower) == 3


@pytest.mark.parametrize("box", [(-5, -5, 2, 2), (3.2, 3.2, 9, 9), (20, 20, 30, 30), (2, 2, 2, 2)])
def test_histogram_of_a_box_beyond_the_image(box: tuple[float, ...]) -> None:
    image = np.full((4, 4, 3), 77, dtype=np.uint8)
    histogram = colour_histogram(image, box)
    assert np.linalg.norm(histogram) == pytest.approx(1)


def test_unreadable_image(world: Any) -> None:
    detections, records, protocol = world
    Path(records[2]["file_name"]).write_bytes(b"no image")
    with pytest.raises(KdpsError, match=r"s2\.png: not a readable image"):
        colour_histograms(detections, records, protocol)


def test_records_of_other_images(world: Any) -> None:
    detections, records, protocol = world
    with pytest.raises(KdpsError, match="but the test set has"):
        colour_histograms(detections, records[::-1], protocol)
