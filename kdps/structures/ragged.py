# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Arrays of groups of uneven length, handled without a Python loop over the groups."""

from __future__ import annotations

import numpy as np


def offsets_of(counts: np.ndarray) -> np.ndarray:
    """``(N + 1,)`` int64 start of each of N groups laid one after the other, and the end."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def expand(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Rows of several groups: ``starts[i], ..., starts[i] + counts[i] - 1`` for each i in turn.

    Args:
        starts: (N,) first row of each group.
        counts: (N,) rows of each group.

    Returns:
        (sum of counts,) int64.
    """
    offsets = offsets_of(counts)
    shift = np.asarray(starts, dtype=np.int64) - offsets[:-1]
    return np.repeat(shift, counts) + np.arange(offsets[-1], dtype=np.int64)


def members_of(groups: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair each of some groups with all of its rows.

    Args:
        groups: (G,) groups, in any order and as often as wanted.
        offsets: (N + 1,) where each group's rows start.

    Returns:
        (P,) place in ``groups`` and (P,) row of each pair.
    """
    counts = offsets[groups + 1] - offsets[groups]
    return np.repeat(np.arange(len(groups)), counts), expand(offsets[groups], counts)


def argmax_per_group(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Index of the largest value of each group; the first one where values are equal.

    Args:
        groups: (N,) group of each value, in any order.
        values: (N,) finite numbers.

    Returns:
        One index into ``values`` per group that occurs, by ascending group.
    """
    order = np.lexsort((-np.asarray(values), groups))
    sorted_groups = np.asarray(groups)[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = sorted_groups[1:] != sorted_groups[:-1]
    return order[first]


def find_sorted(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Index of each wanted number in ascending values, of the first where it repeats; or -1."""
    if len(values) == 0:
        return np.full(len(wanted), -1)
    index = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    return np.where(values[index] == wanted, index, -1)
