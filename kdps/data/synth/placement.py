# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Where people stand: anywhere in the place, but not all behind each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdps.data.synth.identity import Identity
from kdps.data.synth.scene import MEAN_HEIGHT, Scene

CROWDING = 0.55  # largest share of a figure's rough box that one nearer figure may hide
ATTEMPTS = 25  # after which the least crowded of the places tried is taken
DEPTH_BIAS = 1.3  # above 1 more people stand far away
HALF_WIDTH = 0.19  # of a figure's rough box, in body heights


@dataclass(frozen=True)
class Placement:
    """Where one person stands: column and row of the feet, height in pixels."""

    identity: Identity
    x: int
    y: int
    pixels: float


def place(
    scene: Scene, people: tuple[Identity, ...], rng: np.random.Generator, width: int
) -> list[Placement]:
    """Find a place for everybody at which nobody is hidden too much by nearer people."""
    placed: list[Placement] = []
    for identity in people:
        best, least = None, np.inf
        for _ in range(ATTEMPTS):
            # Uniform rows would crowd the foreground with large figures.
            row = scene.farthest + (scene.nearest - scene.farthest) * rng.random() ** DEPTH_BIAS
            pixels = scene.person_pixels(row) * identity.height / MEAN_HEIGHT
            column = rng.uniform(0.02 * width, 0.98 * width)
            candidate = Placement(identity, int(column), int(row), pixels)
            worst = max((_overlap(candidate, other) for other in placed), default=0.0)
            if worst < least:
                best, least = candidate, worst
            if worst < CROWDING * rng.random():
                break
        placed.append(best)
    return placed


def _overlap(a: Placement, b: Placement) -> float:
    """How much of the farther one's rough box the nearer one covers."""
    far, near = (a, b) if a.y < b.y else (b, a)
    half_far, half_near = HALF_WIDTH * far.pixels, HALF_WIDTH * near.pixels
    wide = min(far.x + half_far, near.x + half_near) - max(far.x - half_far, near.x - half_near)
    tall = min(far.y, near.y) - max(far.y - far.pixels, near.y - near.pixels)
    return max(wide, 0) * max(tall, 0) / (2 * half_far * far.pixels)
