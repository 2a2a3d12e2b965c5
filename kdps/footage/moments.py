# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""When something was seen: at a date, or so long after a recording began."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import IntEnum

from kdps.errors import KdpsError

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SECOND = 1_000_000
# Of a recording; what is longer was meant as a date, or is a mistake.
_LONGEST_HOURS = 1000
# Of dates, so that those of a recording which begins then are dates too.
_FIRST, _LAST = (datetime(year, 1, 1, tzinfo=timezone.utc) for year in (1, 9999))
_OFFSET = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:\.\d*)?)")


class Clock(IntEnum):
    """What the microseconds of a moment count from; those of two clocks cannot be compared."""

    NONE = 0  # not known
    RECORDING = 1  # the beginning of its video
    DATE = 2  # 1970-01-01 UTC


@dataclass(frozen=True)
class Moment:
    """A point in time, exact to the microsecond.

    Attributes:
        clock: what it counts from.
        microseconds: since then; 0 if the clock is not known.
    """

    clock: Clock = Clock.NONE
    microseconds: int = 0

    def later(self, microseconds: int) -> Moment:
        """The moment so long after this one, by the same clock."""
        return Moment(self.clock, self.microseconds + microseconds)

    def __str__(self) -> str:
        """A date in ISO 8601 (UTC), or hours, minutes and seconds; empty if not known.

        It has three digits after the second, or six if it takes these to be exact, so that
        ``parse_moment`` gives the same moment again.
        """
        if self.clock is Clock.NONE:
            return ""
        whole = self.microseconds % 1000 == 0
        if self.clock is Clock.DATE:
            date = _EPOCH + timedelta(microseconds=self.microseconds)
            timespec = "milliseconds" if whole else "microseconds"
            return date.replace(tzinfo=None).isoformat(timespec=timespec)
        minutes, rest = divmod(self.microseconds, 60 * _SECOND)
        seconds = f"{rest / _SECOND:06.3f}" if whole else f"{rest / _SECOND:09.6f}"
        return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds}"


def parse_moment(text: str, field: str) -> Moment:
    """A date such as ``2024-05-01T10:30:00`` (UTC unless it names its offset), or a time since the
    beginning of a recording: ``90``, ``1:30`` or ``0:01:30.5``.

    Raises:
        KdpsError: the text is neither, a recording cannot be so long, or the date is not of the
            years 1 to 9998; ``field`` is where it stands.
    """
    found = _OFFSET.fullmatch(text.strip())
    if found:
        hours, minutes, seconds = (float(part or 0) for part in found.groups())
        total = hours * 3600 + minutes * 60 + seconds
        if total > _LONGEST_HOURS * 3600:
            raise KdpsError(
                f"{field}: {text!r} is more than {_LONGEST_HOURS} hours since the beginning of a "
                "recording; a date is written as 2024-05-01"
            )
        return Moment(Clock.RECORDING, round(total * _SECOND))
    try:
        moment = moment_of_date(datetime.fromisoformat(text.strip()))
    except ValueError as error:
        raise KdpsError(
            f"{field}: {text!r} is neither a date (2024-05-01T10:30:00) nor a time since the "
            "beginning of a recording (0:01:30)"
        ) from error
    first, last = moment_of_date(_FIRST), moment_of_date(_LAST)
    if not first.microseconds <= moment.microseconds < last.microseconds:
        raise KdpsError(f"{field}: {text!r} is not of the years 1 to 9998 (UTC)")
    return moment


def moment_of_date(date: datetime) -> Moment:
    """The moment of a date, which is UTC where it names no zone."""
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return Moment(Clock.DATE, (date - _EPOCH) // timedelta(microseconds=1))
