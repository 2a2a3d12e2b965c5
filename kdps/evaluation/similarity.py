# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Similarities of queries to the detections in their galleries, a query at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from kdps.evaluation.entries import GalleryEntries
from kdps.structures.ragged import expand, offsets_of

# Queries per matrix product: bounds the memory, changes no number.
_QUERIES_PER_BLOCK = 128
# Galleries that hold less of the set than this are compared image by image. One product with all
# detections takes fewer steps, but more multiplications.
_SPARSE_SHARE = 0.2
# Candidates of all queries that are compared image by image at once; bounds the memory.
_MAX_SPARSE = 20_000_000


def similarities(
    queries: np.ndarray,
    embeddings: np.ndarray,
    entries: GalleryEntries,
    offsets: np.ndarray,
    device: str = "cpu",
) -> Iterator[np.ndarray]:
    """Dot products of each query with its candidates.

    In float32 the same two vectors get other last digits in other places of a product, and with
    another library, device or size of block. Summed in float64 and rounded they get the same.

    Args:
        queries: (Q, D) embeddings of the queries.
        embeddings: (M, D) embeddings of the detections.
        entries: the candidates of each query.
        offsets: (N + 1,) where each image's detections start.
        device: where the products are computed, as PyTorch names it.

    Yields:
        For each query (L,) float32 similarities of its candidates, which may be written to.
    """
    queries = queries.astype(np.float64)
    embeddings = embeddings.astype(np.float64)
    total = int(entries.lengths.sum())
    dense = len(queries) * len(embeddings)
    sparse = total <= min(_SPARSE_SHARE * dense, _MAX_SPARSE) and not entries.open.any()
    if sparse and device == "cpu":
        flat = _by_image(queries, embeddings, entries, offsets)
        ends = offsets_of(entries.lengths)
        for start, end in zip(ends[:-1], ends[1:], strict=True):
            yield flat[start:end]
        return
    for start, block in _dense_blocks(queries, embeddings, device):
        for query, row in enumerate(block, start):
            yield row if entries.open[query] else row[entries.rows(query, offsets)]


def _dense_blocks(
    queries: np.ndarray, embeddings: np.ndarray, device: str
) -> Iterator[tuple[int, np.ndarray]]:
    gallery = torch.from_numpy(embeddings).to(device).T
    for start in range(0, len(queries), _QUERIES_PER_BLOCK):
        block = torch.from_numpy(queries[start : start + _QUERIES_PER_BLOCK]).to(device)
        yield start, (block @ gallery).float().cpu().numpy()


def _by_image(
    queries: np.ndarray, embeddings: np.ndarray, entries: GalleryEntries, offsets: np.ndarray
) -> np.ndarray:
    """Each image against the queries that list it: (sum of lengths,) float32, query after query."""
    found = np.flatnonzero(offsets[entries.images + 1] > offsets[entries.images])
    if not len(found):
        return np.empty(0, dtype=np.float32)
    order = found[np.argsort(entries.images[found], kind="stable")]
    listed = entries.images[order]
    first = np.flatnonzero(np.append(True, listed[1:] != listed[:-1]))
    last = np.append(first[1:], len(order))
    images = listed[first]
    counts = offsets[images + 1] - offsets[images]
    query = np.repeat(np.arange(len(queries)), np.diff(entries.offsets))[order]
    ends = offsets_of(np.diff(np.append(first, len(order))) * counts)
    products = np.empty(ends[-1])
    for start, end, row, count, place, stop in zip(
        first.tolist(),
        last.tolist(),
        offsets[images].tolist(),
        counts.tolist(),
        ends[:-1].tolist(),
        ends[1:].tolist(),
        strict=True,
    ):
        np.matmul(
            queries.take(query[start:end], axis=0),
            embeddings[row : row + count].T,
            out=products[place:stop].reshape(end - start, count),
        )
    # Back from the order of the images to that of the queries.
    starts = offsets_of(entries.lengths)[query] + entries.starts[order]
    result = np.empty(int(entries.lengths.sum()), dtype=np.float32)
    result[expand(starts, np.repeat(counts, last - first))] = products
    return result
