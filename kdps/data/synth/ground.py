# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Backdrops without people: paved or grown ground, a facade or trees behind it."""

from __future__ import annotations

import cv2
import numpy as np

KINDS = ("asphalt", "tiles", "grass", "slabs")


def paint_backdrop(
    rng: np.random.Generator, width: int, height: int, horizon: float, wall: float
) -> np.ndarray:
    """A (height, width, 3) uint8 BGR picture of an empty place.

    Args:
        rng: chooses materials and colours.
        width: pixels.
        height: pixels.
        horizon: row at which the ground would vanish.
        wall: row at which the backdrop meets the ground, below the horizon.
    """
    picture = np.empty((height, width, 3), np.float32)
    edge = int(wall)
    picture[edge:] = _ground(rng, width, height, horizon, edge)
    picture[:edge] = _facade(rng, width, edge) if rng.random() < 0.65 else _trees(rng, width, edge)
    # A soft dark line where the wall stands on the ground.
    picture[edge : edge + 3] *= 0.75
    return np.clip(picture, 0, 255).astype(np.uint8)


def mottle(rng: np.random.Generator, width: int, height: int, cell: int) -> np.ndarray:
    """Smooth noise of unit variance, (height, width) float32, with blobs of ``cell`` pixels."""
    coarse = rng.standard_normal((height // cell + 2, width // cell + 2), dtype=np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _colour(rng: np.random.Generator, low: float, high: float, tint: float) -> np.ndarray:
    return rng.uniform(low, high) + rng.uniform(-tint, tint, 3).astype(np.float32)


def _ground(
    rng: np.random.Generator, width: int, height: int, horizon: float, edge: int
) -> np.ndarray:
    kind = KINDS[rng.integers(len(KINDS))]
    rows = np.arange(edge, height, dtype=np.float32)[:, None]
    depth = 1.0 / (rows - horizon)
    zoom = rng.uniform(0.8, 1.4) * (height - horizon)
    turn = rng.uniform(-0.7, 0.7)
    sideways = (np.arange(width, dtype=np.float32) - width * rng.uniform(0.2, 0.8)) * depth
    forward = np.broadcast_to(zoom * depth * 1.5, sideways.shape)
    across = 5 * (sideways * np.cos(turn) + forward * np.sin(turn))
    along = 5 * (forward * np.cos(turn) - sideways * np.sin(turn))
    base = _colour(rng, 85, 165, 14)
    tone = 5 * mottle(rng, width, height - edge, 48) + 4 * mottle(rng, width, height - edge, 3)
    if kind == "grass":
        base = np.array([60, 120, 85], np.float32) * rng.uniform(0.75, 1.15)
        tone += 6 * mottle(rng, width, height - edge, 2)
        path = np.abs(across - rng.uniform(-1, 1)) < rng.uniform(1.0, 2.0)
        return np.where(path[..., None], _colour(rng, 130, 170, 10), base) + tone[..., None]
    if kind == "tiles":
        odd = (np.floor(across) + np.floor(along)) % 2
        tone += rng.uniform(4, 22) * (odd - 0.5)
    elif kind == "slabs":
        seam = (across % 1 < 0.06) | (along % 1 < 0.06)
        tone -= rng.uniform(15, 35) * seam
    else:
        lane = (np.abs(across % 4 - 2) < 0.1) & (along % 2 < 1.1)
        tone += rng.uniform(0, 70) * lane
    return base + tone[..., None]


def _facade(rng: np.random.Generator, width: int, edge: int) -> np.ndarray:
    picture = np.empty((edge, width, 3), np.float32)
    left = 0
    while left < width:
        right = min(left + int(rng.uniform(0.25, 0.7) * width), width)
        picture[:, left:right] = _colour(rng, 70, 190, 30)
        if rng.random() < 0.5:
            picture[:: int(rng.integers(6, 14)), left:right] *= 0.9
        _windows(rng, picture[:, left:right])
        left = right
    picture += 3 * mottle(rng, width, edge, 24)[..., None]
    return picture


def _windows(rng: np.random.Generator, wall: np.ndarray) -> None:
    """Paint a grid of windows and a door into a wall, in place."""
    height, width = wall.shape[:2]
    pitch = int(rng.integers(28, 70))
    pane = int(pitch * rng.uniform(0.4, 0.75))
    tall = int(pitch * rng.uniform(0.6, 1.1))
    glass, frame = _colour(rng, 40, 130, 25), _colour(rng, 60, 210, 15)
    for top in range(int(rng.integers(-20, 10)), height - tall - 12, int(tall * 1.5)):
        for left in range(int(rng.integers(4, pitch)), width - pane, pitch):
            upper = max(top, 0)
            wall[upper : top + tall, left : left + pane] = frame
            glow = rng.uniform(0.7, 1.5)
            wall[upper + 2 : max(top + tall - 2, 0), left + 2 : left + pane - 2] = glass * glow
    if width > 60:
        left = int(rng.integers(5, width - 40))
        door = _colour(rng, 30, 150, 40)
        wall[max(height - int(1.3 * tall), 0) :, left : left + 26] = door


def _trees(rng: np.random.Generator, width: int, edge: int) -> np.ndarray:
    rows = np.linspace(0, 1, edge, dtype=np.float32)[:, None, None]
    sky = np.array([235, 215, 195], np.float32) * rng.uniform(0.75, 1.0)
    picture = np.tile((sky * (1 - 0.1 * rows)).astype(np.float32), (1, width, 1))
    green = np.array([55, 95, 70], np.float32)
    for _ in range(int(rng.integers(14, 30))):
        centre = (int(rng.integers(0, width)), int(edge * rng.uniform(0.35, 1.0)))
        radius = int(rng.uniform(0.06, 0.14) * width)
        tone = green * rng.uniform(0.6, 1.3) * rng.uniform(0.85, 1.15, 3)
        axes = (radius, int(radius * rng.uniform(0.7, 1.2)))
        cv2.ellipse(picture, centre, axes, 0, 0, 360, tone.tolist(), -1, cv2.LINE_AA)
    leaves = 9 * mottle(rng, width, edge, 4) + 7 * mottle(rng, width, edge, 12)
    lower = np.clip(3 * rows[..., 0] - 0.4, 0, 1)
    return picture + (leaves * lower)[..., None]
