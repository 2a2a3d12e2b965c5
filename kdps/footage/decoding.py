# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Pictures of a video in order of time, from any time stamp on, as if read from the beginning."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

from kdps.errors import KdpsError, one_line
from kdps.footage.moments import Clock, Moment
from kdps.utils.requirements import require_av

# Time stamps that go back by more than this, in seconds, begin another recording: recorders join
# parts so. By less they are jitter, as of a camera whose clock is set.
_JUMP = 1
# Sought in like MPEG streams, below: after a seek few packets of .wmv have time stamps.
_READ_THROUGH = ("asf",)
# Otherwise time that jumps back by more than a minute is taken for time that went on for a day, and
# the counter of it for having begun anew.
_OPTIONS = {"correct_ts_overflow": "0"}


@dataclass(frozen=True)
class StreamTime:
    """What the time stamps of a stream mean.

    Attributes:
        begin: time stamp at which the video begins.
        unit: of the time stamps, in seconds.
    """

    begin: int
    unit: Fraction

    def seconds(self, stamp: int) -> Fraction:
        """Since the beginning."""
        return (stamp - self.begin) * self.unit

    def microseconds(self, stamp: int) -> int:
        """Since the beginning, rounded down, so that ``stamp_at`` finds the time stamp again."""
        return math.floor(self.seconds(stamp) * 1_000_000)

    def stamp_at(self, microseconds: int) -> int:
        """The first time stamp that is not earlier than so long after the beginning."""
        return self.begin + math.ceil(Fraction(microseconds, 1_000_000) / self.unit)


class Decoder:
    """Decodes a video, of which it holds one picture at a time.

    Attributes:
        path: of the video.
        damaged: packets that could not be decoded so far.
        disordered: pictures left out so far, as one with a later time stamp came before.
        cut: why reading ended before the end; empty if it did not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self.disordered = 0
        self.cut = ""
        self._av = require_av()

    @cached_property
    def time(self) -> StreamTime:
        """What its time stamps mean.

        Raises:
            KdpsError: it cannot be opened.
        """
        with self._stream() as stream:
            return StreamTime(stream.start_time or 0, stream.time_base)

    @property
    def length(self) -> float:
        """In seconds, as its head states it; 0 if it states none.

        Raises:
            KdpsError: it cannot be opened.
        """
        with self._stream() as stream:
            if stream.duration:
                return float(stream.duration * stream.time_base)
            return (stream.container.duration or 0) / self._av.time_base

    def pictures(self, after: int | None = None) -> Iterator[Any]:
        """PyAV's frames with rising time stamps; those up to ``after`` may be missing.

        Args:
            after: a time stamp; None takes all pictures.

        Raises:
            KdpsError: the video cannot be opened or has no time stamps.
        """
        if after is not None:
            for stream, packets in self._approaches(after):
                pictures = self._from_key_picture(stream, packets, after)
                if pictures is not None:
                    yield from self._in_order(pictures)
                    return
        with self._stream() as stream:
            yield from self._in_order(self._decoded(stream, stream.container.demux(stream)))

    def _approaches(self, after: int) -> Iterator[tuple[Any, Iterator[Any]]]:
        """A stream and its packets from a place on, which may be too late; ever earlier ones."""
        with self._stream() as stream:
            kind = stream.container.format
            jumpy = kind.flags & self._av.format.Flags.ts_discont.value
            if not jumpy and kind.name not in _READ_THROUGH:
                yield from ((stream, packets) for packets in self._sought(stream, after))
                return
            skipped = self._packets_before(stream, after)
        # MPEG streams are sought in by halving, which time stamps that jump back lead astray; and
        # where only some packets have time stamps, those of the others depend on where one begins.
        # To read packets without decoding them is fast.
        with self._stream() as stream:
            yield stream, islice(stream.container.demux(stream), skipped, None)

    def _sought(self, stream: Any, after: int) -> Iterator[Iterator[Any]]:
        # Where a container has only the times of decoding, one may land behind the key picture.
        second = math.ceil(1 / stream.time_base)
        back = 0
        while after - back > self.time.begin:
            try:
                stream.container.seek(after - back, stream=stream)
            except self._av.FFmpegError:
                return
            yield stream.container.demux(stream)
            back = max(2 * back, second)

    def _packets_before(self, stream: Any, after: int) -> int:
        """How many packets precede the last key picture that is not later than a time stamp."""
        key = 0
        latest = newest = None
        packets = stream.container.demux(stream)
        try:
            for number, packet in enumerate(packets):
                if packet.dts is None:
                    continue
                # No picture is shown before it is decoded.
                if packet.dts > after or self._jumps(latest, packet.dts):
                    break
                latest = packet.dts
                if packet.pts is None or (newest is not None and packet.pts <= newest):
                    continue
                newest = packet.pts
                if packet.is_keyframe and newest <= after:
                    key = number
        except self._av.FFmpegError:
            # Whoever reads on from there meets the same error, and tells it.
            pass
        return key

    def _from_key_picture(
        self, stream: Any, packets: Iterator[Any], after: int
    ) -> Iterator[Any] | None:
        """Pictures from a key picture not later than a time stamp on; None if it is later."""
        damaged, cut = self.damaged, self.cut
        pictures = self._decoded(stream, packets)
        first = next((p for p in pictures if p.key_frame or p.pts is None or p.pts > after), None)
        # What refers to pictures before the place could not be decoded, and is not damaged.
        self.damaged, self.cut = damaged, cut
        if first is None or first.pts is None or first.pts > after:
            return None
        return chain([first], pictures)

    def _in_order(self, pictures: Iterator[Any]) -> Iterator[Any]:
        latest = None
        for picture in pictures:
            if picture.pts is None:
                raise KdpsError(f"video {self.path}: its frames have no time stamps")
            if latest is not None and picture.pts <= latest:
                self.disordered += 1
                continue
            latest = picture.pts
            yield picture

    def _decoded(self, stream: Any, packets: Iterator[Any]) -> Iterator[Any]:
        latest = None
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except self._av.FFmpegError as error:
                self.cut = one_line(error)
                return
            jumps = self._jumps(latest, packet.dts)
            try:
                # None asks for the pictures that the decoder still holds.
                yield from stream.decode(None if jumps else packet)
            except self._av.FFmpegError:
                self.damaged += 1
            if jumps:
                moment = Moment(Clock.RECORDING, self.time.microseconds(latest))
                self.cut = f"time stamps jump back after {moment}"
                return
            latest = latest if packet.dts is None else packet.dts

    def _jumps(self, latest: int | None, stamp: int | None) -> bool:
        """Whether another recording begins with a packet, by its time of decoding."""
        if latest is None or stamp is None:
            return False
        return (latest - stamp) * self.time.unit > _JUMP

    @contextmanager
    def _stream(self) -> Iterator[Any]:
        try:
            container = self._av.open(str(self.path), options=_OPTIONS)
        except (self._av.FFmpegError, OSError) as error:
            raise KdpsError(f"video {self.path} cannot be read: {_reason(error)}") from error
        with container:
            if not container.streams.video:
                raise KdpsError(f"video {self.path} cannot be read: it holds no picture")
            yield container.streams.video[0]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or one_line(error)
