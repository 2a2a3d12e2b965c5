# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
from footage import make_sightings

from kdps.footage.moments import Clock
from kdps.index.sightings import Sightings
from kdps.search.merging import Merging, merge_sightings

RED, BLUE, PURPLE = (1.0, 0.0), (0.0, 1.0), (0.7071068, 0.7071068)


def sightings(
    *rows: tuple[float, tuple[float, float]],
    cameras: str | None = None,
    sources: str | None = None,
    clock: Clock = Clock.DATE,
) -> Sightings:
    """One row for each pair of seconds and embedding; letters name cameras and sources."""
    many = make_sightings(len(rows), size=2)
    changed = {
        "times": np.array([round(seconds * 1_000_000) for seconds, _ in rows]),
        "embeddings": np.array([vector for _, vector in rows], dtype=np.float32),
        "cameras": np.array(list(cameras or "a" * len(rows))),
        "sources": np.array(list(sources or "s" * len(rows))),
        "clocks": np.full(len(rows), clock, dtype=np.int8),
    }
    return Sightings(**{**vars(many), **changed})


def groups(found: Sightings, gap: float = 2.0, alike: float = 0.9) -> set[tuple[int, ...]]:
    return {tuple(group.tolist()) for group in merge_sightings(found, Merging(gap, alike))}


def test_a_gap_ends_a_stay() -> None:
    found = sightings((3, RED), (0, RED), (1, RED), (5.5, RED), (5, RED))
    assert groups(found) == {(1, 2, 0, 4, 3)}
    assert groups(found, gap=1.5) == {(1, 2), (0,), (4, 3)}
    assert groups(found, gap=0) == {(0,), (1,), (2,), (3,), (4,)}


def test_two_persons_at_a_time_stay_two() -> None:
    found = sightings((0, RED), (0, BLUE), (1, BLUE), (1, RED), (2, RED), (2, RED))
    merged = groups(found)
    assert (1, 2) in merged
    assert len(merged) == 3
    assert {0, 3} < set(max(merged, key=len))


def test_unlike_persons_are_not_merged() -> None:
    found = sightings((0, RED), (1, PURPLE))
    assert groups(found) == {(0,), (1,)}
    assert groups(found, alike=0.7) == {(0, 1)}


def test_cameras_are_apart() -> None:
    assert groups(sightings((0, RED), (1, RED), cameras="ab")) == {(0,), (1,)}


def test_recordings_without_a_date_are_apart() -> None:
    rows = ((0, RED), (1, RED))
    assert groups(sightings(*rows, sources="xy")) == {(0, 1)}
    assert groups(sightings(*rows, sources="xy", clock=Clock.RECORDING)) == {(0,), (1,)}
    assert groups(sightings(*rows, clock=Clock.RECORDING)) == {(0, 1)}
    assert groups(sightings(*rows, clock=Clock.NONE)) == {(0,), (1,)}


def test_nothing_to_merge() -> None:
    assert groups(make_sightings(0, size=2)) == set()
