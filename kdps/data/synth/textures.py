# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Patterns of garments and heads as functions of the place on the body."""

from __future__ import annotations

import math

import numpy as np

from kdps.data.synth.canvas import Texture
from kdps.data.synth.identity import Style

# Indices into a garment's palette.
BASE, ACCENT, INNER, STRAP, SKIN = range(5)


def trunk_texture(style: Style) -> Texture:
    """The upper garment: pattern, open front, and the straps of a bag.

    The palette is (base, accent, inner shirt, strap, skin).
    """
    pattern = PATTERN_FUNCTIONS[style.pattern]
    open_front = style.cut == "jacket"

    def texture(azimuth: np.ndarray, along: np.ndarray) -> np.ndarray:
        index = pattern(azimuth, along)
        if open_front:
            index[np.abs(azimuth) < 0.2 + 0.25 * along] = INNER
        if style.bag == "backpack":
            index[(np.abs(np.abs(azimuth) - 0.75) < 0.14) & (along < 0.75)] = STRAP
        elif style.bag == "shoulder":
            # From one shoulder across the chest to the other hip, and back again behind.
            target = np.where(np.abs(azimuth) < math.pi / 2, azimuth, math.pi - azimuth)
            index[np.abs(np.sin(target) - (1.5 * along - 0.75)) < 0.12] = STRAP
        return index

    return texture


def sleeve_texture(style: Style) -> Texture:
    """A sleeve of the same cloth; prints on the chest do not reach it."""
    pattern = {"horizontal": _horizontal_sleeve, "checks": _horizontal_sleeve}.get(style.pattern)
    return pattern or _plain


def head_texture(style: Style) -> Texture:
    """Hair, cap, face: the palette is (skin, hair, cap, eyes, mouth)."""

    def texture(azimuth: np.ndarray, along: np.ndarray) -> np.ndarray:
        turned = np.abs(azimuth)
        index = np.zeros(azimuth.shape, np.intp)
        index[(np.abs(turned - 0.42) < 0.15) & (np.abs(along - 0.42) < 0.07)] = 3
        index[(turned < 0.28) & (np.abs(along - 0.86) < 0.05)] = 4
        if style.hair == "bald":
            return index
        line = {"short": 0.58, "cap": 0.62, "bun": 0.72, "long": 0.95}[style.hair]
        # The hair line drops from the forehead over the temples to the neck.
        edge = 0.24 + (line - 0.24) * np.clip((turned - 0.75) / 0.7, 0, 1)
        index[along < edge] = 1
        if style.hair == "cap":
            index[along < 0.34] = 2
        return index

    return texture


def _plain(azimuth: np.ndarray, along: np.ndarray) -> np.ndarray:
    return np.full(azimuth.shape, BASE, np.intp)


def _horizontal(azimuth: np.ndarray, along: np.ndarray) -> np.ndarray:
    return ((along * 7) % 2 >= 1).astype(np.intp)


def _horizontal_sleeve(azimuth: np.ndarray, along: np.ndarray) -> np.ndarray:
    return ((along * 4) % 2 >= 1).astype(np.intp)


def _vertical(azimuth: np.ndarray, along: np.ndarray) -> np.ndarray:
    return ((azimuth * 12 / math.pi + 0.5) % 2 >= 1).astype(np.intp)


def _checks(azimuth: np.ndarray, along: np.ndarray) -> np.ndarray:
    across = ((azimuth * 8 / math.pi) % 2 >= 1).astype(np.intp)
    return across ^ ((along * 6) % 2 >= 1)


def _chest_block(azimuth: np.ndarray, along: np.ndarray) -> np.ndarray:
    front = np.abs(azimuth) < 0.62
    # A smaller print of the same colour between the shoulders keeps the pattern known from behind.
    back = np.abs(azimuth) > math.pi - 0.95
    chest = front & (along > 0.24) & (along < 0.58)
    return (chest | (back & (along > 0.12) & (along < 0.34))).astype(np.intp)


def _two_tone(azimuth: np.ndarray, along: np.ndarray) -> np.ndarray:
    return (along > 0.52).astype(np.intp)


PATTERN_FUNCTIONS: dict[str, Texture] = {
    "plain": _plain,
    "horizontal": _horizontal,
    "vertical": _vertical,
    "checks": _checks,
    "chest-block": _chest_block,
    "two-tone": _two_tone,
}
