# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdps.errors import KdpsError
from kdps.footage.moments import Clock, Moment, parse_moment


@pytest.mark.parametrize(
    ("text", "clock", "microseconds", "shown"),
    [
        ("90", Clock.RECORDING, 90_000_000, "00:01:30.000"),
        ("1:30.5", Clock.RECORDING, 90_500_000, "00:01:30.500"),
        ("2:01:30", Clock.RECORDING, 7_290_000_000, "02:01:30.000"),
        ("59.9996", Clock.RECORDING, 59_999_600, "00:00:59.999600"),
        ("1970-01-02", Clock.DATE, 86_400_000_000, "1970-01-02T00:00:00.000"),
        ("1970-01-01T01:00:00.25+01:00", Clock.DATE, 250_000, "1970-01-01T00:00:00.250"),
    ],
)
def test_texts(text: str, clock: Clock, microseconds: int, shown: str) -> None:
    moment = parse_moment(text, "--from")
    assert (moment.clock, moment.microseconds) == (clock, microseconds)
    assert str(moment) == shown
    assert parse_moment(shown, "--from") == moment


@pytest.mark.parametrize("text", ["", "soon", "1:2:3:4", "-5", "2024-13-01"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(KdpsError, match="--to: .* is neither a date"):
        parse_moment(text, "--to")


@pytest.mark.parametrize("text", ["20240501", "1714557600", "1001:00:00", "9" * 20, "9" * 400])
def test_no_recording_is_so_long(text: str) -> None:
    with pytest.raises(
        KdpsError, match="--to: .* is more than 1000 hours .* written as 2024-05-01"
    ):
        parse_moment(text, "--to")


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-10:00", "0001-01-01T00:00:00+01:00"])
def test_dates_that_cannot_be_shown(text: str) -> None:
    with pytest.raises(KdpsError, match="--start: .* years 1 to 9998"):
        parse_moment(text, "--start")


@given(st.sampled_from([Clock.RECORDING, Clock.DATE]), st.integers(0, 1000 * 3600 * 1_000_000))
def test_what_is_shown_is_the_same_moment_again(clock: Clock, microseconds: int) -> None:
    moment = Moment(clock, microseconds)
    assert parse_moment(str(moment), "--at") == moment


def test_unknown_time_is_empty() -> None:
    assert str(Moment()) == ""
