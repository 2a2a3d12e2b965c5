# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdps.errors import KdpsError
from kdps.evaluation.assemble import ImagePrediction
from kdps.evaluation.prediction_parts import PredictionParts


def make_prediction(name: str, people: int, queries: int, annotated: int | None) -> ImagePrediction:
    rng = np.random.default_rng(people)

    def rows(count: int, width: int = 3) -> np.ndarray:
        return rng.normal(size=(count, width)).astype(np.float32)

    return ImagePrediction(
        image_id=name,
        det=rows(people, 5),
        emb=rows(people),
        query_ids=np.arange(queries),
        query_emb=rows(queries),
        annotated_emb=None if annotated is None else rows(annotated),
        has_queries=queries > 0,
    )


def assert_same(one: ImagePrediction, other: ImagePrediction) -> None:
    assert (one.image_id, one.has_queries) == (other.image_id, other.has_queries)
    for name in ("det", "emb", "query_ids", "query_emb"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype
    assert (one.annotated_emb is None) == (other.annotated_emb is None)
    if one.annotated_emb is not None:
        np.testing.assert_array_equal(one.annotated_emb, other.annotated_emb)


def test_what_is_added_comes_back(tmp_path: Path) -> None:
    made = [
        make_prediction("a.jpg", 2, 1, 1),
        make_prediction("b.jpg", 0, 0, None),
        make_prediction("c.jpg", 3, 0, 0),
        make_prediction("d.jpg", 1, 2, None),
    ]
    parts = PredictionParts(tmp_path / "parts", {"weights": "1"})
    assert parts.load() == {}
    parts.add([])
    assert not parts.folder.exists()
    parts.add(made[:3])
    parts.add(made[3:])
    found = PredictionParts(tmp_path / "parts", {"weights": "1"}).load()
    assert list(found) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    for prediction in made:
        assert_same(found[prediction.image_id], prediction)
    parts.remove()
    assert not parts.folder.exists()


def test_parts_of_another_origin_or_damaged_are_removed(tmp_path: Path) -> None:
    first = PredictionParts(tmp_path, {"weights": "1", "config": "a"})
    first.add([make_prediction("a.jpg", 2, 1, 1)])
    first.add([make_prediction("b.jpg", 2, 1, 1)])
    (tmp_path / "000001.npz").write_bytes(b"PK half a file")
    assert list(PredictionParts(tmp_path, {"config": "a", "weights": "1"}).load()) == ["a.jpg"]
    assert [path.name for path in tmp_path.iterdir()] == ["000000.npz"]
    assert PredictionParts(tmp_path, {"weights": "2", "config": "a"}).load() == {}
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    parts = PredictionParts(tmp_path / "file" / "parts", {})
    with pytest.raises(KdpsError, match="parts: cannot be made"):
        parts.add([make_prediction("a.jpg", 1, 1, 1)])
