# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Frames of a video with their exact time stamps, through PyAV."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from kdps.errors import KdpsError, one_line
from kdps.footage.moments import Clock, Moment
from kdps.utils.requirements import require_av

logger = logging.getLogger(__name__)

# Seconds; less may be disorder.
_JUMP = 1
# Formats (.mpg) in which few frames have a time stamp: the others' are counted on from these, which
# comes to other numbers from the middle of a video than from its beginning.
_GUESSED_STAMPS = ("mpeg",)


@dataclass(frozen=True)
class VideoFrame:
    """A frame.

    Attributes:
        stamp: its time stamp, in the unit of the stream.
        microseconds: since the beginning of the video, rounded down: ``frame_after`` finds it by
            them.
        image: (H, W, 3) uint8 in BGR order.
    """

    stamp: int
    microseconds: int
    image: np.ndarray


class VideoReader:
    """Reads a video, of which it holds one frame at a time.

    Damaged parts are left out. Where time stamps jump back, as where recordings were joined,
    reading ends: frames are known by their stamps.

    Attributes:
        path: of the video.
        damaged: packets that could not be decoded so far.
        cut: why reading ended before the end; empty if it did not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self.cut = ""
        self._av = require_av()

    @property
    def fault(self) -> str:
        """What was wrong with the video so far, in one line; empty if nothing was."""
        parts = [f"{self.damaged} damaged packets left out"] if self.damaged else []
        if self.cut:
            parts.append(f"reading ended before the end ({self.cut})")
        return ", ".join(parts)

    def seconds(self, after: int | None = None) -> float:
        """Its length as its head states it, after a time stamp; 0 if it states none.

        Raises:
            KdpsError: it cannot be opened.
        """
        with self._stream() as stream:
            if stream.duration:
                length = float(stream.duration * stream.time_base)
            else:
                length = (stream.container.duration or 0) / self._av.time_base
            if after is None:
                return length
            return max(0.0, length - float((after - (stream.start_time or 0)) * stream.time_base))

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
        with self._stream() as stream:
            begin, unit = stream.start_time or 0, stream.time_base
            last = None if after is None else _span(after - begin, unit, rate)
            latest = begin
            for frame in self._decoded(stream) if after is None else self._after(stream, after):
                if frame.pts is None:
                    raise KdpsError(f"video {self.path}: its frames have no time stamps")
                if (latest - frame.pts) * unit > _JUMP:
                    when = Moment(Clock.RECORDING, _microseconds(latest - begin, unit))
                    self.cut = f"time stamps jump back after {when}"
                    return
                latest = max(latest, frame.pts)
                span = _span(frame.pts - begin, unit, rate)
                if last is not None and span <= last:
                    continue
                last = span
                microseconds = _microseconds(frame.pts - begin, unit)
                yield VideoFrame(frame.pts, microseconds, frame.to_ndarray(format="bgr24"))

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
        with self._stream() as stream:
            offset = Fraction(microseconds, 1_000_000) / stream.time_base
            stamp = (stream.start_time or 0) + math.ceil(offset)
        return self.frame_at(stamp)

    def _after(self, stream: Any, stamp: int) -> Iterator[Any]:
        """Frames that all later than a time stamp are among, from a key frame before them on.

        In containers without an index (.ts, .mpg, some .avi) a seek may land later than it should,
        so that it is checked where it did.
        """
        known = self.damaged, self.cut
        second = math.ceil(1 / stream.time_base)
        place, back = stamp + 1, second
        exact = stream.container.format.name not in _GUESSED_STAMPS
        while exact and place > (stream.start_time or 0):
            try:
                stream.container.seek(place, stream=stream)
            except self._av.FFmpegError:
                logger.debug("%s: cannot be sought in, is read from its beginning", self.path)
                break
            frames = self._decoded(stream)
            # What comes before a key frame lacks what it is predicted from.
            first = next((frame for frame in frames if frame.key_frame), None)
            self.damaged, self.cut = known
            if first is not None and first.pts is not None and first.pts <= stamp + 1:
                yield first
                yield from frames
                return
            place, back = stamp + 1 - back, 2 * back
        # Not by a seek, which may not lead there either.
        with self._stream() as unmoved:
            yield from self._decoded(unmoved)

    def _decoded(self, stream: Any) -> Iterator[Any]:
        packets = stream.container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except self._av.FFmpegError as error:
                self.cut = one_line(error)
                return
            try:
                yield from packet.decode()
            except self._av.FFmpegError:
                self.damaged += 1

    @contextmanager
    def _stream(self) -> Iterator[Any]:
        try:
            container = self._av.open(str(self.path))
        except (self._av.FFmpegError, OSError) as error:
            raise KdpsError(f"video {self.path} cannot be read: {_reason(error)}") from error
        with container:
            if not container.streams.video:
                raise KdpsError(f"video {self.path} cannot be read: it holds no picture")
            yield container.streams.video[0]


def _span(offset: int, unit: Fraction, rate: float | None) -> int:
    """Number of the span that a time stamp (since the beginning) falls into."""
    return offset if rate is None else math.floor(offset * unit * Fraction(rate))


def _microseconds(offset: int, unit: Fraction) -> int:
    return math.floor(offset * unit * 1_000_000)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or one_line(error)
