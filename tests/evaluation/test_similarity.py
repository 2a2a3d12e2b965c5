# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
import pytest

from kdps.data.protocol import Gallery, Query, SearchProtocol
from kdps.evaluation import similarity as similarity_module
from kdps.evaluation.entries import gallery_entries
from kdps.evaluation.similarity import similarities
from kdps.structures.ragged import offsets_of

NONE = np.zeros(0, dtype=np.int64)
BOX = (0.0, 0.0, 1.0, 1.0)
COUNTS = np.array([3, 0, 2, 5, 1, 4, 0])


def make_protocol(galleries: list[list[int] | None]) -> SearchProtocol:
    names = tuple(f"s{i}" for i in range(len(COUNTS)))
    return SearchProtocol(
        name="p",
        images=names,
        cam_ids=np.zeros(len(names), dtype=np.int64),
        queries=tuple(Query("s0", BOX, 1) for _ in galleries),
        galleries=tuple(
            Gallery(
                None if g is None else np.array(g, dtype=np.int64), NONE, NONE, np.zeros((0, 4))
            )
            for g in galleries
        ),
    )


def products(protocol: SearchProtocol, seed: int = 0, **kwargs) -> tuple[list, list]:
    """Similarities and what they should be, computed one by one."""
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal((len(protocol.queries), 16)).astype(np.float32)
    embeddings = rng.standard_normal((COUNTS.sum(), 16)).astype(np.float32)
    offsets = offsets_of(COUNTS)
    entries = gallery_entries(protocol, offsets, "copies")
    found = list(similarities(queries, embeddings, entries, offsets, **kwargs))
    expected = []
    for query, gallery in zip(queries.astype(float), protocol.galleries, strict=True):
        images = range(len(COUNTS)) if gallery.images is None else gallery.images
        rows = [row for i in images for row in range(offsets[i], offsets[i + 1])]
        expected.append(embeddings[rows].astype(float) @ query)
    return found, expected


GALLERIES = [[5, 0], [3], [], [1, 6], [2, 2, 4], [0]]


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("galleries", [GALLERIES, [None, None], [*GALLERIES, None]])
def test_products_are_those_of_the_candidates(galleries, share, monkeypatch) -> None:
    monkeypatch.setattr(similarity_module, "_SPARSE_SHARE", share)
    monkeypatch.setattr(similarity_module, "_QUERIES_PER_BLOCK", 2)
    found, expected = products(make_protocol(galleries))
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        assert row.dtype == np.float32
        np.testing.assert_allclose(row, other, rtol=0, atol=1e-6)


def test_both_ways_give_the_same_bits(monkeypatch) -> None:
    results = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(similarity_module, "_SPARSE_SHARE", share)
        results.append(np.concatenate(products(make_protocol(GALLERIES * 20))[0]))
    np.testing.assert_array_equal(*results)


def test_memory_bounds_the_comparison_by_image(monkeypatch) -> None:
    monkeypatch.setattr(similarity_module, "_SPARSE_SHARE", 1.0)
    monkeypatch.setattr(similarity_module, "_MAX_SPARSE", 3)
    monkeypatch.delattr(similarity_module, "_by_image")
    found, expected = products(make_protocol(GALLERIES))
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-6)


def test_a_device_gets_one_product_per_block(monkeypatch) -> None:
    monkeypatch.setattr(similarity_module, "_SPARSE_SHARE", 1.0)
    monkeypatch.setattr(similarity_module, "_dense_blocks", lambda q, e, device: [(0, [device])])
    protocol = make_protocol([None])
    assert products(protocol, device="meta")[0] == ["meta"]
