# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Which sightings a search is about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdps.errors import KdpsError
from kdps.footage.moments import Moment
from kdps.index.sightings import Sightings


@dataclass(frozen=True)
class Selection:
    """Conditions that all have to hold; one left at its default holds always.

    Attributes:
        cameras: the camera is among these.
        start: seen then or later. What has no time by the clock of ``start`` is left out.
        end: likewise, then or earlier.
        without: the source is none of these.
    """

    cameras: tuple[str, ...] = ()
    start: Moment | None = None
    end: Moment | None = None
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.start and self.end:
            if self.start.clock is not self.end.clock:
                raise KdpsError(
                    f"from {self.start} to {self.end}: one is a date, the other counts from the "
                    "beginning of a recording"
                )
            if self.start.microseconds > self.end.microseconds:
                raise KdpsError(f"from {self.start} to {self.end}: ends before it begins")

    def mask(self, sightings: Sightings) -> np.ndarray:
        """(N,) bool, whether each sighting is meant."""
        meant = np.ones(len(sightings), dtype=bool)
        if self.cameras:
            meant &= np.isin(sightings.cameras, self.cameras)
        for bound, sign in ((self.start, 1), (self.end, -1)):
            if bound:
                meant &= sightings.clocks == bound.clock
                meant &= sign * sightings.times >= sign * bound.microseconds
        if self.without:
            meant &= ~np.isin(sightings.sources, self.without)
        return meant


EVERYTHING = Selection()
