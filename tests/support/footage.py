# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Videos and sightings made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from kdps.index.opening import open_index
from kdps.index.sightings import Sightings, concatenate, sighting_key


def write_video(
    path: Path,
    images: Sequence[np.ndarray],
    stamps: Sequence[int],
    unit: int,
    codec: str = "mpeg4",
    group: int = 5,
    between: int = 0,
) -> None:
    """Write BGR images as a video with these time stamps, in 1 / ``unit`` seconds.

    Args:
        path: of the video; its end names the container.
        images: each (H, W, 3) uint8.
        stamps: one of each image.
        unit: parts of a second.
        codec: as FFmpeg calls its encoder.
        group: pictures from one key picture to the next.
        between: pictures in a row that refer to later ones (B-frames).
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        stream.gop_size = group
        stream.codec_context.max_b_frames = between
        stream.codec_context.time_base = stream.time_base = Fraction(1, unit)
        for image, stamp in zip(images, stamps, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = stamp, Fraction(1, unit)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def grey_frames(count: int, height: int = 64, width: int = 80) -> list[np.ndarray]:
    """Frames that can be told apart by their brightness, 8 times their number."""
    return [np.full((height, width, 3), 8 * i, dtype=np.uint8) for i in range(count)]


def make_sightings(
    count: int, size: int = 8, seed: int = 0, source: str = "/footage/a.mp4", camera: str = "a"
) -> Sightings:
    """One sighting in each of so many frames, a second apart, by the clock of the recording."""
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((count, size)).astype(np.float32)
    frames = np.arange(count, dtype=np.int64)
    return Sightings(
        keys=np.array([sighting_key(source, i, 0) for i in range(count)], dtype=np.str_),
        sources=np.full(count, source),
        cameras=np.full(count, camera),
        frames=frames,
        clocks=np.ones(count, dtype=np.int8),
        times=frames * 1_000_000,
        boxes=rng.uniform(0, 100, (count, 4)).astype(np.float32),
        scores=rng.uniform(0.5, 1, count).astype(np.float32),
        embeddings=embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
    )


def rows_of(path: Path | str) -> Sightings:
    """All sightings of an index, by their keys."""
    with open_index(str(path)) as index:
        rows = concatenate(list(index.scan()))
    return rows.take(np.argsort(rows.keys))
