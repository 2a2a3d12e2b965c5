# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Persons that were seen: what an index holds a row of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from kdps.errors import KdpsError

_KEY_BYTES = 16


@dataclass(frozen=True)
class Sightings:
    """Persons detected in footage, a row each.

    Attributes:
        keys: (N,) str, unique; see ``sighting_key``.
        sources: (N,) str, paths of the images or videos.
        cameras: (N,) str.
        frames: (N,) int64 time stamps in the unit of the video's stream; 0 in an image.
        clocks: (N,) int8, values of ``kdps.footage.moments.Clock``.
        times: (N,) int64 microseconds by that clock.
        boxes: (N, 4) float32 XYXY absolute pixels.
        scores: (N,) float32 detection scores.
        embeddings: (N, D) float32 rows of unit length.
    """

    keys: np.ndarray
    sources: np.ndarray
    cameras: np.ndarray
    frames: np.ndarray
    clocks: np.ndarray
    times: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    embeddings: np.ndarray

    def __post_init__(self) -> None:
        shapes = {name: getattr(self, name).shape for name in _NAMES}
        rows = len(self.keys)
        fits = all(len(shape) == (2 if name in _WIDE else 1) for name, shape in shapes.items())
        if not fits or self.boxes.shape != (rows, 4) or {s[0] for s in shapes.values()} != {rows}:
            raise KdpsError(f"sightings: the columns have shapes {shapes}")

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: np.ndarray | Sequence[int] | slice) -> Sightings:
        """Some of the rows, by index or mask."""
        return Sightings(*(getattr(self, name)[rows] for name in _NAMES))


_NAMES = tuple(field.name for field in fields(Sightings))
_WIDE = ("boxes", "embeddings")


def concatenate(parts: Sequence[Sightings]) -> Sightings:
    """The rows of all parts, of which there is at least one, in their order."""
    return Sightings(*(np.concatenate([getattr(p, name) for p in parts]) for name in _NAMES))


def sighting_key(source: str, frame: int, number: int) -> str:
    """The primary key of a detection; the same whenever and wherever it is computed.

    Args:
        source: path of the image or video.
        frame: time stamp in the video.
        number: of the detection among those of the frame.
    """
    text = json.dumps([source, frame, number])
    # 128 bits: among 1e9 rows two meet with a probability of 1e-21.
    return hashlib.blake2b(text.encode(), digest_size=_KEY_BYTES).hexdigest()
