# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What all back ends of an index have in common, beside an exact search in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from footage import make_sightings

from kdps.errors import KdpsError
from kdps.footage.moments import Clock, Moment, parse_moment
from kdps.index.base import EmbeddingIndex, ModelIdentity
from kdps.index.faiss_index import FaissIndex
from kdps.index.opening import open_index
from kdps.index.selection import Selection
from kdps.index.sightings import Sightings, concatenate

IDENTITY = ModelIdentity("a" * 64, 8)
# A name that a filter expression has to quote.
ODD = 'yard "2" \\ \u00e9, (x)'


@pytest.fixture(params=["milvus", "flat", "ivfpq"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddingIndex]:
    if request.param != "milvus":
        yield FaissIndex(IDENTITY, request.param)
        return
    with open_index(str(tmp_path / "index.db"), IDENTITY) as opened:
        yield opened


@pytest.fixture
def people() -> Sightings:
    parts = [
        make_sightings(20, seed=1),
        make_sightings(20, seed=2, source=f"/footage/{ODD}.mp4", camera=ODD),
        make_sightings(20, seed=3, source="/footage/b.mp4", camera="b"),
    ]
    parts[2].clocks[:] = Clock.DATE
    return concatenate(parts)


def exact(people: Sightings, query: np.ndarray, top_k: int, selection: Selection) -> list[str]:
    rows = people.take(selection.mask(people))
    return rows.keys[np.argsort(-(rows.embeddings @ query))[:top_k]].tolist()


SELECTIONS = [
    Selection(),
    Selection(cameras=(ODD,)),
    Selection(cameras=("a", "b"), without=("/footage/a.mp4",)),
    Selection(without=(f"/footage/{ODD}.mp4", "/footage/b.mp4")),
    Selection(start=parse_moment("5", ""), end=parse_moment("9.5", "")),
    Selection(start=parse_moment("1970-01-01T00:00:03", "")),
    Selection(end=parse_moment("3", ""), cameras=(ODD, "nowhere")),
    Selection(cameras=("nowhere",)),
]


def test_search_is_that_of_numpy(index: EmbeddingIndex, people: Sightings) -> None:
    index.upsert(people)
    assert len(index) == 60
    queries = people.embeddings[[3, 30]]
    for selection in SELECTIONS:
        found = index.search(queries, 7, selection)
        assert len(found) == 2
        for query, matches in zip(queries, found, strict=True):
            expected = exact(people, query, 7, selection)
            assert matches.sightings.keys.tolist() == expected, selection
            np.testing.assert_allclose(
                matches.similarities, matches.sightings.embeddings @ query, atol=1e-5
            )


def test_the_time_of_another_clock_is_no_time() -> None:
    people = make_sightings(4)
    people.clocks[:] = Clock.NONE
    assert not Selection(start=Moment(Clock.RECORDING)).mask(people).any()
    with pytest.raises(KdpsError, match="one is a date"):
        Selection(start=parse_moment("3", ""), end=parse_moment("2024-01-01", ""))
    with pytest.raises(KdpsError, match="ends before it begins"):
        Selection(start=parse_moment("3", ""), end=parse_moment("2", ""))


def test_scan_gives_back_every_column(index: EmbeddingIndex, people: Sightings) -> None:
    assert list(index.scan()) == []
    index.upsert(people)
    found = concatenate(list(index.scan()))
    assert len(found) == 60
    mine, theirs = np.argsort(people.keys), np.argsort(found.keys)
    for name in vars(people):
        np.testing.assert_array_equal(getattr(people, name)[mine], getattr(found, name)[theirs])


def test_equal_keys_replace(index: EmbeddingIndex, people: Sightings) -> None:
    index.upsert(people)
    changed = people.take(slice(0, 20))
    index.upsert(Sightings(**{**vars(changed), "embeddings": -changed.embeddings}))
    assert len(index) == 60
    best = index.search(-changed.embeddings[:1], 1)[0]
    assert best.sightings.keys[0] == changed.keys[0]
    assert best.similarities[0] == pytest.approx(1, abs=1e-5)
    found = concatenate(list(index.scan()))
    assert len(found) == len(set(found.keys.tolist())) == 60


def test_nobody_is_found_in_an_empty_index(index: EmbeddingIndex, people: Sightings) -> None:
    (found,) = index.search(people.embeddings[:1], 5)
    assert len(found.sightings) == len(found.similarities) == 0


def test_embeddings_of_another_size(index: EmbeddingIndex) -> None:
    with pytest.raises(KdpsError, match="holds embeddings of 8 numbers, not of 4"):
        index.upsert(make_sightings(3, size=4))


def test_quantized_codes_find_most() -> None:
    """Clustered vectors, enough of them to learn a code book from."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((100, 16)).astype(np.float32)
    rows = centres[rng.integers(100, size=10_000)] + 0.3 * rng.standard_normal((10_000, 16))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    people = make_sightings(10_000, size=16)
    people = Sightings(**{**vars(people), "embeddings": rows})
    index = FaissIndex.load(ModelIdentity("", 16), [people], "ivfpq")
    exact_one = FaissIndex.load(ModelIdentity("", 16), [people], "flat")
    queries = rows[:50]
    hits = [
        len(set(a.sightings.keys.tolist()) & set(b.sightings.keys.tolist()))
        for a, b in zip(index.search(queries, 10), exact_one.search(queries, 10), strict=True)
    ]
    assert 0.3 < np.mean(hits) / 10 < 1
    firsts = [found.sightings.keys[0] for found in exact_one.search(queries, 10)]
    assert firsts == people.keys[:50].tolist()


@pytest.mark.parametrize("count", [1, 7, 8, 60])
def test_queries_together_find_what_each_finds_alone(people: Sightings, count: int) -> None:
    faiss = pytest.importorskip("faiss")
    index = FaissIndex(IDENTITY)
    index.upsert(people)
    before = faiss.cvar.distance_compute_blas_threshold
    during = []
    parameters = index._parameters

    def watched(meant: np.ndarray) -> None:
        during.append(faiss.cvar.distance_compute_blas_threshold)
        return parameters(meant)

    with mock.patch.object(index, "_parameters", watched):
        together = index.search(people.embeddings[:count], 5)
    assert during == [1 if count >= 8 else before]
    assert faiss.cvar.distance_compute_blas_threshold == before
    for query, matches in zip(people.embeddings[:count], together, strict=True):
        assert matches.sightings.keys.tolist() == exact(people, query, 5, Selection())


def test_no_such_kind() -> None:
    with pytest.raises(KdpsError, match="no kind 'hnsw'"):
        FaissIndex(IDENTITY, "hnsw")


def test_columns_have_to_fit() -> None:
    columns: dict[str, Callable] = vars(make_sightings(3))
    with pytest.raises(KdpsError, match="the columns have shapes"):
        Sightings(**{**columns, "scores": np.zeros(2, dtype=np.float32)})
