#!/usr/bin/env python3
# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What each back end of a gallery index takes and gives: time, disk, queries per second, recall.

    python benchmarks/gallery_index.py --rows 1000000
    python benchmarks/gallery_index.py --rows 1000000 --backends flat ivfpq --repeat 5

Embeddings are drawn: so many sightings of each person around a direction of their own, the queries
further sightings of some of them. Recall counts the ten best of exact search that a back end finds.
Exact searches take turns with the bare product of the matrices, which is the least they can do. MB
are of all that lies on the disk, or of FAISS' vectors or codes, without paths, times and keys.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import by_turns, conditions, seconds

from kdps.index.base import EmbeddingIndex, ModelIdentity
from kdps.index.faiss_index import FaissIndex
from kdps.index.opening import open_index
from kdps.index.sightings import Sightings, sighting_key

TOP = 10
# Queries that are asked together.
BATCH = 64
_PART = 5000
_BACKENDS = ("flat", "ivfpq", "milvus-lite")
# Cosine of two sightings of one person, about.
_ALIKE = 0.6


def main() -> None:
    args = _parse()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    people = _unit(rng, args.rows // args.sightings + 1, args.size)
    rows = _seen(rng, np.arange(args.rows) // args.sightings, people)
    queries = _seen(rng, rng.integers(0, len(people), args.queries), people)
    truth = _exact(torch.from_numpy(queries), torch.from_numpy(rows)).numpy()
    keys = np.array([sighting_key("a", i, 0) for i in range(args.rows)], np.str_)
    identity = ModelIdentity("0" * 64, args.size)
    table: dict[str, dict[str, float]] = {}
    flat = None
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for name in args.backends:
            if name == "milvus-lite":
                place = Path(folder) / "index.db"
                built = seconds(lambda place=place: _fill_file(place, identity, rows, keys), "cpu")
                with open_index(str(place), identity) as index:
                    row = {"build, s": built, "MB": _megabytes(place)}
                    table[name] = row | _searched(index, queries, truth, keys, args.repeat)
                continue
            index = FaissIndex(identity, name)
            built = seconds(lambda index=index: _fill(index, rows, keys), "cpu")
            # It learns and takes in when it is asked for the first time.
            built += seconds(lambda index=index: index.search(queries[:1], TOP), "cpu")
            row = {"build, s": built, "MB": index.size_in_bytes() / 1e6}
            table[name] = row | _searched(index, queries, truth, keys, args.repeat)
            flat = index if name == "flat" else flat
    found = {
        "back_ends": table,
        "seconds_of_64_queries": _beside_the_product(flat, rows, queries, args.repeat),
        "threads": torch.get_num_threads(),
        **conditions(),
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=256, help="numbers of an embedding")
    parser.add_argument("--sightings", type=int, default=10, help="of each person")
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--backends", nargs="+", choices=_BACKENDS, default=_BACKENDS)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="for files; default: that for temporary ones")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _unit(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    drawn = rng.standard_normal((count, size), dtype=np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def _seen(rng: np.random.Generator, whom: np.ndarray, people: np.ndarray) -> np.ndarray:
    """A sighting of each of these people, a row of unit length."""
    seen = _ALIKE**0.5 * people[whom]
    seen += (1 - _ALIKE) ** 0.5 * _unit(rng, len(whom), people.shape[1])
    return seen / np.linalg.norm(seen, axis=1, keepdims=True)


def _exact(queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(Q, TOP) the best rows of each query: parts of the product, and the best of each."""
    values, places = [], []
    for start in range(0, len(rows), _PART * 10):
        product = queries @ rows[start : start + _PART * 10].T
        part = product.topk(min(TOP, product.shape[1]))
        values.append(part.values)
        places.append(part.indices + start)
    best = torch.cat(values, dim=1).topk(TOP)
    return torch.cat(places, dim=1).gather(1, best.indices)


def _parts(rows: np.ndarray, keys: np.ndarray) -> Iterator[Sightings]:
    for start in range(0, len(rows), _PART):
        own = slice(start, min(start + _PART, len(rows)))
        count = own.stop - own.start
        numbers = np.arange(own.start, own.stop, dtype=np.int64)
        yield Sightings(
            keys=keys[own],
            sources=np.array([f"/footage/camera/{n // 5000:06d}.mp4" for n in numbers], np.str_),
            cameras=np.full(count, "camera"),
            frames=numbers,
            clocks=np.ones(count, dtype=np.int8),
            times=numbers,
            boxes=np.zeros((count, 4), dtype=np.float32),
            scores=np.ones(count, dtype=np.float32),
            embeddings=rows[own],
        )


def _fill(index: EmbeddingIndex, rows: np.ndarray, keys: np.ndarray) -> None:
    for part in _parts(rows, keys):
        index.upsert(part)


def _fill_file(place: Path, identity: ModelIdentity, rows: np.ndarray, keys: np.ndarray) -> None:
    with open_index(str(place), identity) as index:
        _fill(index, rows, keys)


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _searched(
    index: EmbeddingIndex, queries: np.ndarray, truth: np.ndarray, keys: np.ndarray, repeat: int
) -> dict[str, float]:
    """Queries per second, one at a time and together, and recall."""
    # The first search loads what is on the disk.
    loading = seconds(lambda: index.search(queries[:1], TOP), "cpu")
    alone = _median(lambda: index.search(queries[:1], TOP), repeat)
    together = _median(lambda: index.search(queries[:BATCH], TOP), repeat)
    hits = 0
    for start in range(0, len(queries), BATCH):
        found = index.search(queries[start : start + BATCH], TOP)
        for own, wanted in zip(found, truth[start : start + BATCH], strict=True):
            hits += len(set(own.sightings.keys.tolist()) & set(keys[wanted].tolist()))
    return {
        "first search, s": loading,
        "queries/s, one": 1 / alone,
        "queries/s, 64": BATCH / together,
        "recall@10": hits / truth.size,
    }


def _median(work: Callable[[], Any], repeat: int) -> float:
    return statistics.median(seconds(work, "cpu") for _ in range(repeat))


def _beside_the_product(
    flat: FaissIndex | None, rows: np.ndarray, queries: np.ndarray, repeat: int
) -> Mapping[str, Mapping[str, float]]:
    """Exact searches of a batch and the product that they cannot do without, by turns."""
    some, all_rows = torch.from_numpy(queries[:BATCH]), torch.from_numpy(rows)
    out = torch.empty(len(some), len(all_rows))
    works: dict[str, Callable[[], Any]] = {
        "product": lambda: torch.matmul(some, all_rows.T, out=out),
        "torch": lambda: _exact(some, all_rows),
    }
    if flat is not None:
        works["FAISS flat"] = lambda: flat.search(queries[:BATCH], TOP)
    # Once for what is slow at first.
    by_turns(works, 1, "cpu")
    medians = by_turns(works, repeat, "cpu")
    return {
        name: {"seconds": own, "times the product": own / medians["product"]}
        for name, own in medians.items()
    }


if __name__ == "__main__":
    main()
