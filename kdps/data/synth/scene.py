# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A place: backdrop, perspective, things that stand there, light."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from kdps.data.synth.canvas import Sprite
from kdps.data.synth.config import SPLITS, STREAM_SCENE, SynthConfig
from kdps.data.synth.ground import paint_backdrop
from kdps.data.synth.props import KINDS, draw_prop

MEAN_HEIGHT = 1.7  # metres; the person to whom pixel heights refer


@dataclass(frozen=True)
class Prop:
    """A thing at a place: column and row of its foot, its picture and its shadow."""

    x: int
    y: int
    sprite: Sprite
    shadow: Sprite


@dataclass(frozen=True)
class Scene:
    """A place as one camera sees it.

    Attributes:
        backdrop: (H, W, 3) uint8 BGR, empty of people and things.
        horizon: row of the horizon; a figure's height grows linearly below it.
        slope: height of a person of mean height, per row below the horizon.
        nearest: lowest row at which feet stand; may lie below the frame.
        farthest: highest row at which feet stand.
        tilt: angle in radians by which the camera looks down.
        light: side of the sun, -1 left to 1 right.
        props: the things, from far to near.
    """

    backdrop: np.ndarray
    horizon: float
    slope: float
    nearest: float
    farthest: float
    tilt: float
    light: float
    props: tuple[Prop, ...]

    def person_pixels(self, row: float) -> float:
        """Height in pixels of a person of mean height whose feet are at ``row``."""
        return self.slope * (row - self.horizon)


@lru_cache(maxsize=16)
def make_scene(config: SynthConfig, split: str, camera: int, index: int) -> Scene:
    """The place ``index`` of a camera. Kept, since many images show the same place."""
    rng = config.rng(STREAM_SCENE, SPLITS.index(split), camera, 1 + index)
    width, height = config.width, config.height
    small, large = (fraction * height for fraction in config.person_height)
    horizon = height * rng.uniform(0.12, 0.3)
    nearest = height * rng.uniform(0.93, 1.05)
    slope = large * rng.uniform(0.85, 1.0) / (nearest - horizon)
    farthest = horizon + small / slope
    wall = horizon + (farthest - horizon) * rng.uniform(0.45, 0.85)
    light = float(rng.uniform(-1, 1))
    backdrop = paint_backdrop(rng, width, height, horizon, wall)
    props = []
    for _ in range(int(rng.integers(3, 8))):
        kind = KINDS[rng.integers(len(KINDS))]
        y = rng.uniform(farthest, nearest)
        metre = slope * (y - horizon) / MEAN_HEIGHT
        sprite = draw_prop(kind, rng, metre, light)
        x = int(rng.integers(0, width))
        props.append(Prop(x, int(y), sprite.trimmed(), sprite.shadow(light)))
    return Scene(
        backdrop=backdrop,
        horizon=horizon,
        slope=slope,
        nearest=nearest,
        farthest=farthest,
        tilt=float(rng.uniform(0.06, 0.3)),
        light=light,
        props=tuple(sorted(props, key=lambda prop: prop.y)),
    )
