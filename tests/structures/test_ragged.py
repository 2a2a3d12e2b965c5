# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kdps.structures.ragged import argmax_per_group, expand, find_sorted, members_of, offsets_of


def test_offsets_begin_with_zero_and_end_with_the_total() -> None:
    assert offsets_of(np.array([2, 0, 3])).tolist() == [0, 2, 2, 5]
    assert offsets_of(np.zeros(0, dtype=int)).tolist() == [0]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=10))
def test_expand_is_the_joined_ranges(groups: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in groups], dtype=np.int64)
    counts = np.array([count for _, count in groups], dtype=np.int64)
    expected = [row for start, count in groups for row in range(start, start + count)]
    assert expand(starts, counts).tolist() == expected


def test_members_of_groups_in_any_order() -> None:
    place, row = members_of(np.array([2, 0, 2, 1]), np.array([0, 2, 2, 5]))
    assert place.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert row.tolist() == [2, 3, 4, 0, 1, 2, 3, 4]


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.5, 1.0])), max_size=20))
def test_argmax_per_group_takes_the_first_of_equals(rows: list[tuple[int, float]]) -> None:
    best: dict[int, int] = {}
    for i, (group, value) in enumerate(rows):
        if group not in best or value > rows[best[group]][1]:
            best[group] = i
    groups = np.array([group for group, _ in rows], dtype=np.int64)
    values = np.array([value for _, value in rows])
    assert argmax_per_group(groups, values).tolist() == [best[g] for g in sorted(best)]


@given(st.lists(st.integers(0, 9), max_size=12), st.lists(st.integers(-1, 10), max_size=6))
def test_find_sorted_gives_the_first_place_or_none(values: list[int], wanted: list[int]) -> None:
    values.sort()
    expected = [values.index(w) if w in values else -1 for w in wanted]
    found = find_sorted(np.array(values, dtype=np.int64), np.array(wanted, dtype=np.int64))
    assert found.tolist() == expected
