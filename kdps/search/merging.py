# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Consecutive sightings of one person on one camera, found among the matches of a query."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from kdps.footage.moments import Clock
from kdps.index.sightings import Sightings


@dataclass(frozen=True)
class Merging:
    """When two sightings in a row are one stay of one person.

    Attributes:
        gap: the most seconds between them; 0 merges nothing.
        alike: the least cosine of their embeddings.
    """

    gap: float = 5.0
    alike: float = 0.6


DEFAULT_MERGING = Merging()


def merge_sightings(sightings: Sightings, merging: Merging) -> list[np.ndarray]:
    """Group sightings into stays.

    On each camera, frames are gone through by time. The sightings of a frame are assigned to the
    stays that are not over, at most one to each, so that the sum of their cosines to the last
    sightings of these is highest; what is left begins a stay. What has no time stays alone.

    Args:
        sightings: (N) of them in any order.
        merging: the rule.

    Returns:
        Arrays of row numbers, by time; each row is in one.
    """
    lanes: dict[tuple[str, ...], list[int]] = defaultdict(list)
    groups: list[list[int]] = []
    for row in range(len(sightings)):
        clock = sightings.clocks[row]
        if clock == Clock.NONE or merging.gap <= 0:
            groups.append([row])
            continue
        # By its own clock, a recording can be compared with itself alone.
        source = sightings.sources[row] if clock == Clock.RECORDING else ""
        lanes[str(sightings.cameras[row]), str(clock), str(source)].append(row)
    for rows in lanes.values():
        groups.extend(_stays(sightings, np.array(rows), merging))
    return [np.array(group) for group in groups]


def _stays(sightings: Sightings, rows: np.ndarray, merging: Merging) -> list[list[int]]:
    times = sightings.times[rows]
    order = np.argsort(times, kind="stable")
    rows, times = rows[order], times[order]
    starts = np.flatnonzero(np.diff(times, prepend=times[0] - 1))
    over: list[list[int]] = []
    open_stays: list[list[int]] = []
    for frame in np.split(rows, starts[1:]):
        now = sightings.times[frame[0]]
        lasts = [sightings.times[stay[-1]] for stay in open_stays]
        late = [now - last > merging.gap * 1_000_000 for last in lasts]
        over.extend(stay for stay, is_late in zip(open_stays, late, strict=True) if is_late)
        open_stays = [s for s, is_late in zip(open_stays, late, strict=True) if not is_late]
        last_rows = [stay[-1] for stay in open_stays]
        cosines = sightings.embeddings[frame] @ sightings.embeddings[last_rows].T
        taken = set()
        for i, j in zip(*linear_sum_assignment(cosines, maximize=True), strict=True):
            if cosines[i, j] >= merging.alike:
                open_stays[j].append(int(frame[i]))
                taken.add(i)
        open_stays.extend([int(row)] for i, row in enumerate(frame) if i not in taken)
    return over + open_stays
