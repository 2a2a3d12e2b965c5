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
from kdps.utils.requirements import require_av

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoFrame:
    """A frame.

    Attributes:
        stamp: its time stamp, in the unit of the stream.
        microseconds: since the beginning of the video.
        image: (H, W, 3) uint8 in BGR order.
    """

    stamp: int
    microseconds: int
    image: np.ndarray


class VideoReader:
    """Reads a video, of which it holds one frame at a time.

    Damaged parts are left out.

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
            last = None
            if after is not None:
                last = _span(after - begin, unit, rate)
                self._seek(stream, after)
            for frame in self._decoded(stream):
                if frame.pts is None:
                    raise KdpsError(f"video {self.path}: its frames have no time stamps")
                span = _span(frame.pts - begin, unit, rate)
                if last is not None and span <= last:
                    continue
                last = span
                yield VideoFrame(
                    frame.pts,
                    round((frame.pts - begin) * unit * 1_000_000),
                    frame.to_ndarray(format="bgr24"),
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
        with self._stream() as stream:
            offset = Fraction(microseconds, 1_000_000) / stream.time_base
            stamp = (stream.start_time or 0) + math.ceil(offset)
        return self.frame_at(stamp)

    def _seek(self, stream: Any, stamp: int) -> None:
        try:
            stream.container.seek(stamp, stream=stream)
        except self._av.FFmpegError:
            logger.debug("%s: cannot be sought in, is read from its beginning", self.path)

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


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or one_line(error)
