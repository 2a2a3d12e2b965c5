# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Frames of a video with their exact time stamps, through PyAV."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from kdps.errors import KdpsError
from kdps.footage.decoding import Decoder


@dataclass(frozen=True)
class VideoFrame:
    """A frame.

    Attributes:
        stamp: its time stamp, in the unit of the stream.
        microseconds: since the beginning of the video, rounded down.
        image: (H, W, 3) uint8 in BGR order.
    """

    stamp: int
    microseconds: int
    image: np.ndarray


class VideoReader:
    """Reads a video, of which it holds one frame at a time.

    Damaged parts are left out. Where the time stamps jump back by more than a second, as where
    recordings were joined, the video ends: a time stamp names one frame only.

    Attributes:
        path: of the video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._decoder = Decoder(path)

    @property
    def fault(self) -> str:
        """What was wrong with the video so far, in one line; empty if nothing was."""
        damaged, disordered = self._decoder.damaged, self._decoder.disordered
        parts = [f"{damaged} damaged packets left out"] if damaged else []
        if disordered:
            parts.append(f"{disordered} frames out of order left out")
        if self._decoder.cut:
            parts.append(f"reading ended before the end ({self._decoder.cut})")
        return ", ".join(parts)

    def seconds(self, after: int | None = None) -> float:
        """Its length as its head states it, after a time stamp; 0 if it states none.

        Raises:
            KdpsError: it cannot be opened.
        """
        length = self._decoder.length
        if after is None:
            return length
        return max(0.0, length - float(self._decoder.time.seconds(after)))

    def frames(self, rate: float | None = None, after: int | None = None) -> Iterator[VideoFrame]:
        """Some of the frames, in order of time.

        Time is divided into spans of 1 / ``rate`` seconds; the first frame of each span is taken.
        Which those are does not depend on ``after``.

        Args:
            rate: frames per second; None takes all.
            after: time stamp of a frame; only later ones are taken.

        Raises:
            KdpsError: the video cannot be opened or has no time stamps.
        """
        time = self._decoder.time
        last = None if after is None else _span(time.seconds(after), rate)
        for picture in self._decoder.pictures(after):
            span = _span(time.seconds(picture.pts), rate)
            if last is not None and span <= last:
                continue
            last = span
            yield VideoFrame(
                picture.pts,
                time.microseconds(picture.pts),
                picture.to_ndarray(format="bgr24"),
            )

    def frame_at(self, stamp: int) -> VideoFrame:
        """The frame with a time stamp, or the next one.

        Raises:
            KdpsError: the video cannot be opened, or ends before.
        """
        for frame in self.frames(after=stamp - 1):
            return frame
        raise KdpsError(f"video {self.path}: has no frame at or after time stamp {stamp}")

    def frame_after(self, microseconds: int) -> VideoFrame:
        """The first frame that is not earlier than so long after the beginning.

        Raises:
            KdpsError: the video cannot be opened, or ends before.
        """
        return self.frame_at(self._decoder.time.stamp_at(microseconds))


def _span(seconds: Fraction, rate: float | None) -> Fraction | int:
    """Number of the span that a time since the beginning falls into."""
    return seconds if rate is None else math.floor(seconds * Fraction(rate))
