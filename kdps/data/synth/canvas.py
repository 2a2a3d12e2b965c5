# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A small picture with a mask, on which round body parts are painted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# (azimuth, along) -> index into the palette. Azimuth is the angle around the body, 0 at its
# front, in radians; along runs from 0 to 1 down the part. All arrays have the same shape.
Texture = Callable[[np.ndarray, np.ndarray], np.ndarray]

SUPERSAMPLING = 2


@dataclass(frozen=True)
class Sprite:
    """A drawn figure or thing, to be pasted into a picture.

    Attributes:
        colour: (h, w, 3) float32 BGR, already multiplied by ``alpha``.
        alpha: (h, w) float32 in [0, 1].
        origin: column and row of the sprite that stand on the ground point.
    """

    colour: np.ndarray
    alpha: np.ndarray
    origin: tuple[int, int]

    def trimmed(self) -> Sprite:
        """The same picture without its empty margins."""
        x, y, width, height = cv2.boundingRect((self.alpha > 0).view(np.uint8))
        here = (slice(y, y + height), slice(x, x + width))
        return Sprite(self.colour[here], self.alpha[here], (self.origin[0] - x, self.origin[1] - y))

    def shadow(self, light: float) -> Sprite:
        """The outline in black, laid down on the ground away from the light, trimmed."""
        height, width = self.alpha.shape
        reach = int(0.5 * height)
        foot_x, foot_y = self.origin
        # Rows shrink to a third, and lean to the side away from the light.
        lean, squash = -0.6 * light, 0.3
        matrix = np.float64(
            [
                [1, -lean, reach + lean * foot_y],
                [0, squash, foot_y * (1 - squash)],
            ]
        )
        outline = cv2.warpAffine(self.alpha, matrix, (width + 2 * reach, height))
        outline = cv2.blur(outline, (3, 3))
        black = np.zeros((*outline.shape, 3), np.float32)
        return Sprite(black, 0.4 * outline, (foot_x + reach, foot_y)).trimmed()


class Canvas:
    """Paints without anti-aliasing at a multiple of the final size; ``sprite`` shrinks it.

    Args:
        width: final width in pixels.
        height: final height in pixels.
        light: from -1 (light from the left) to 1 (from the right).
    """

    def __init__(self, width: int, height: int, light: float) -> None:
        self.colour = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING, 3), np.uint8)
        self.mask = np.zeros(self.colour.shape[:2], np.uint8)
        self.light = light

    def tube(
        self,
        start: Sequence[float],
        end: Sequence[float],
        radii: tuple[float, float],
        palette: Sequence[tuple[int, int, int]],
        texture: Texture | None = None,
        yaw: float = 0.0,
        waist: float = 0.0,
        caps: bool = True,
    ) -> None:
        """Paint a tapered cylinder in final pixels.

        Args:
            start: column and row of the upper end.
            end: column and row of the lower end.
            radii: half widths at the two ends.
            palette: BGR colours; the texture chooses among them.
            texture: None paints the first colour.
            yaw: direction of the body, which turns the texture.
            waist: narrows the middle by this fraction of the radius.
            caps: round ends, else straight ones.
        """
        k = SUPERSAMPLING
        x0, y0, x1, y1 = (k * float(v) for v in (*start[:2], *end[:2]))
        r0, r1 = k * radii[0], k * radii[1]
        reach = max(r0, r1) + 1
        left = max(math.floor(min(x0, x1) - reach), 0)
        top = max(math.floor(min(y0, y1) - reach), 0)
        right = min(math.ceil(max(x0, x1) + reach) + 1, self.mask.shape[1])
        bottom = min(math.ceil(max(y0, y1) + reach) + 1, self.mask.shape[0])
        if right <= left or bottom <= top:
            return
        xs = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - x0)
        ys = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - y0)
        length = max(math.hypot(x1 - x0, y1 - y0), 1e-3)
        ax, ay = (x1 - x0) / length, (y1 - y0) / length
        along = (xs * ax + ys * ay) / length
        across = xs * ay - ys * ax
        clamped = np.minimum(np.maximum(along, 0), 1)
        radius = r0 + (r1 - r0) * clamped
        if waist:
            radius *= 1 - waist * 4 * clamped * (1 - clamped)
        if caps:
            beyond = (along - clamped) * length
            inside = across**2 + beyond**2 <= radius**2
        else:
            inside = (np.abs(across) <= radius) & (along == clamped)
        # From here on only the painted pixels, about half of the window.
        across, radius = across[inside], radius[inside]
        side = np.minimum(np.maximum(across / np.maximum(radius, 1e-3), -1), 1)
        shade = 1.0 + 0.16 * self.light * side - 0.24 * side * side
        # Channels apart: numpy is slow at arrays whose last axis has a length of three.
        channels = np.asarray(palette, np.float32).T
        if texture is None:
            colours = channels[:, :1]
        else:
            azimuth = wrap(np.arcsin(side) - yaw)
            colours = channels.take(texture(azimuth, clamped[inside]), axis=1)
        window = (slice(top, bottom), slice(left, right))
        for channel, painted in enumerate(np.minimum(colours * shade, 255)):
            self.colour[(*window, channel)][inside] = painted
        self.mask[window][inside] = 255

    def polygon(self, points: Sequence[Sequence[float]], colour: tuple[int, int, int]) -> None:
        """Paint a flat polygon; ``points`` are (column, row) in final pixels."""
        corners = np.round(np.asarray(points, np.float64) * SUPERSAMPLING).astype(np.int32)
        cv2.fillPoly(self.colour, [corners], colour)
        cv2.fillPoly(self.mask, [corners], 255)

    def sprite(self, origin: tuple[int, int]) -> Sprite:
        """The finished picture at its final size."""
        size = (self.mask.shape[1] // SUPERSAMPLING, self.mask.shape[0] // SUPERSAMPLING)
        # Unpainted pixels are black, so the mean of a block is the colour times its coverage.
        colour = cv2.resize(self.colour, size, interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(self.mask, size, interpolation=cv2.INTER_AREA)
        return Sprite(colour.astype(np.float32), alpha.astype(np.float32) / 255, origin)


def wrap(angle: np.ndarray) -> np.ndarray:
    """Angles to [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
