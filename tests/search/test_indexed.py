# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
import pytest
import torch
from footage import make_sightings

from kdps.index.base import ModelIdentity
from kdps.index.faiss_index import FaissIndex
from kdps.index.selection import Selection
from kdps.index.sightings import Sightings, concatenate
from kdps.search.indexed import IndexedGallery
from kdps.search.merging import Merging

SIZE = 8


def gallery(people: Sightings, merging: Merging) -> IndexedGallery:
    return IndexedGallery(FaissIndex.load(ModelIdentity("", SIZE), [people]), merging)


def crowd(seed: int, stays: int, length: int) -> Sightings:
    """So many persons, one after the other, each seen so many times a second apart."""
    parts = []
    for number in range(stays):
        part = make_sightings(length, SIZE, seed, source=f"/footage/{number}.mp4")
        vector = np.random.default_rng([seed, number]).standard_normal(SIZE)
        vectors = vector + 0.01 * part.embeddings
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        parts.append(Sightings(**{**vars(part), "embeddings": vectors.astype(np.float32)}))
    return concatenate(parts)


def test_a_stay_is_one_hit_and_there_are_as_many_as_asked_for() -> None:
    people = crowd(0, stays=30, length=40)
    query = torch.from_numpy(people.embeddings[0])
    hits = gallery(people, Merging(gap=2)).search(query, top_k=20)
    # The first question brings eight matches for each hit, which are of four persons only.
    assert len(hits) == 20
    assert {hit.sightings for hit in hits[:5]} == {40}
    assert len({hit.source for hit in hits}) == 20
    assert (hits[0].source, hits[0].frame) == ("/footage/0.mp4", 0)
    assert (str(hits[0].first), str(hits[0].last)) == ("00:00:00.000", "00:00:39.000")
    values = [hit.similarity for hit in hits]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("seed", range(5))
def test_weighting_is_exact(seed: int) -> None:
    """Though the index knows no scores: low ones first fill up what it is asked for."""
    people = make_sightings(3000, SIZE, seed)
    scores = np.random.default_rng(seed).choice([0.05, 1.0], 3000, p=[0.9, 0.1])
    people = Sightings(**{**vars(people), "scores": scores.astype(np.float32)})
    query = people.embeddings[0]
    expected = np.sort(people.embeddings @ query * people.scores)[::-1][:5]
    hits = gallery(people, Merging(gap=0)).search(torch.from_numpy(query), 5, weighted=True)
    np.testing.assert_allclose([hit.similarity for hit in hits], expected, atol=1e-5)


def test_selection_and_nobody() -> None:
    people = crowd(1, stays=3, length=5)
    one = gallery(people, Merging())
    query = torch.from_numpy(people.embeddings[0])
    without = Selection(without=("/footage/0.mp4",))
    assert {h.source for h in one.search(query, 9, selection=without)} == {
        "/footage/1.mp4",
        "/footage/2.mp4",
    }
    assert one.search(query, 9, selection=Selection(cameras=("none",))) == []
    assert len(one) == 15
