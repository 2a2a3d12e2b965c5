# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Things that stand about and hide people: poles, bins, benches, cars, bushes, signs."""

from __future__ import annotations

import math

import numpy as np

from kdps.data.synth.canvas import Canvas, Sprite

KINDS = ("pole", "bin", "bench", "car", "bush", "sign", "barrier")


def draw_prop(kind: str, rng: np.random.Generator, metre: float, light: float) -> Sprite:
    """Draw a thing.

    Args:
        kind: one of ``KINDS``.
        rng: chooses colour and proportions.
        metre: pixels per metre at the thing's place.
        light: side of the light, -1 left to 1 right.

    Returns:
        A sprite whose origin is the middle of the thing's foot.
    """
    width, height = SIZES[kind]
    half, tall = math.ceil(width / 2 * metre) + 3, math.ceil(height * metre) + 3
    canvas = Canvas(2 * half, tall + math.ceil(0.2 * metre) + 3, light)
    PAINTERS[kind](_Brush(canvas, (half, tall), metre), rng)
    return canvas.sprite((half, tall))


class _Brush:
    """Paints in metres around the foot of a thing: x to the right, z up."""

    def __init__(self, canvas: Canvas, origin: tuple[int, int], metre: float) -> None:
        self.canvas, self.origin, self.metre = canvas, origin, metre

    def _point(self, x: float, z: float) -> tuple[float, float]:
        return self.origin[0] + x * self.metre, self.origin[1] - z * self.metre

    def tube(self, x: float, low: float, high: float, radius: float, colour: tuple) -> None:
        self.canvas.tube(
            self._point(x, high),
            self._point(x, low),
            (radius * self.metre, radius * self.metre),
            [colour],
            caps=False,
        )

    def ball(self, x: float, z: float, radius: float, colour: tuple) -> None:
        size = (radius * self.metre, radius * self.metre)
        self.canvas.tube(self._point(x, z), self._point(x, z - 0.01), size, [colour])

    def shape(self, points: list[tuple[float, float]], colour: tuple) -> None:
        self.canvas.polygon([self._point(x, z) for x, z in points], colour)

    def block(self, left: float, right: float, low: float, high: float, colour: tuple) -> None:
        self.shape([(left, low), (right, low), (right, high), (left, high)], colour)


def _tone(rng: np.random.Generator, low: int = 40, high: int = 190) -> tuple[int, int, int]:
    return tuple(int(v) for v in rng.integers(low, high, 3))


def _grey(rng: np.random.Generator) -> tuple[int, int, int]:
    level = int(rng.integers(45, 150))
    return level, level, level


def _pole(brush: _Brush, rng: np.random.Generator) -> None:
    brush.tube(0, 0, 3.2, 0.07, _grey(rng))
    brush.tube(0, 0, 0.35, 0.11, _grey(rng))


def _bin(brush: _Brush, rng: np.random.Generator) -> None:
    colour = _tone(rng, 30, 130)
    brush.tube(0, 0, 0.85, 0.28, colour)
    brush.block(-0.3, 0.3, 0.82, 0.92, tuple(v // 2 for v in colour))


def _bench(brush: _Brush, rng: np.random.Generator) -> None:
    wood, iron = (60, 90, 130), _grey(rng)
    for x in (-0.75, 0.75):
        brush.block(x - 0.04, x + 0.04, 0, 0.85, iron)
    for low in (0.4, 0.56, 0.72):
        brush.block(-0.9, 0.9, low, low + 0.11, wood)


def _car(brush: _Brush, rng: np.random.Generator) -> None:
    body = _tone(rng, 30, 220)
    dark = tuple(int(v * 0.6) for v in body)
    brush.shape([(-2.1, 0.3), (2.1, 0.3), (2.1, 0.75), (1.9, 0.9), (-2.0, 0.9)], body)
    brush.shape([(-1.4, 0.85), (1.25, 0.85), (0.75, 1.42), (-0.95, 1.42)], dark)
    brush.shape([(-1.2, 0.9), (-0.1, 0.9), (-0.1, 1.34), (-0.88, 1.34)], (150, 140, 130))
    brush.shape([(0.05, 0.9), (1.05, 0.9), (0.7, 1.34), (0.05, 1.34)], (150, 140, 130))
    brush.block(-2.1, 2.1, 0.3, 0.42, dark)
    for x in (-1.3, 1.3):
        brush.ball(x, 0.33, 0.33, (25, 25, 25))
        brush.ball(x, 0.33, 0.17, (140, 140, 140))


def _bush(brush: _Brush, rng: np.random.Generator) -> None:
    for _ in range(14):
        shade = rng.uniform(0.7, 1.2)
        colour = (int(50 * shade), int(100 * shade), int(65 * shade))
        brush.ball(rng.uniform(-0.55, 0.55), rng.uniform(0.25, 0.75), 0.25, colour)
    brush.block(-0.6, 0.6, 0, 0.3, _grey(rng))


def _sign(brush: _Brush, rng: np.random.Generator) -> None:
    brush.tube(0, 0, 2.3, 0.035, _grey(rng))
    brush.block(-0.35, 0.35, 1.75, 2.35, _tone(rng, 60, 230))
    brush.block(-0.25, 0.25, 1.98, 2.1, (235, 235, 235))


def _barrier(brush: _Brush, rng: np.random.Generator) -> None:
    colour = _grey(rng)
    for x in (-0.95, 0.0, 0.95):
        brush.tube(x, 0, 1.0, 0.03, colour)
    for low in (0.35, 0.92):
        brush.block(-1.0, 1.0, low, low + 0.07, colour)


PAINTERS = {
    "pole": _pole,
    "bin": _bin,
    "bench": _bench,
    "car": _car,
    "bush": _bush,
    "sign": _sign,
    "barrier": _barrier,
}
SIZES = {  # metres, width and height
    "pole": (0.3, 3.3),
    "bin": (0.7, 1.0),
    "bench": (2.0, 0.95),
    "car": (4.4, 1.5),
    "bush": (1.7, 1.1),
    "sign": (0.9, 2.5),
    "barrier": (2.2, 1.1),
}
