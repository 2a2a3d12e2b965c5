# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from kdps.footage.decoding import StreamTime


@given(
    begin=st.integers(-(10**6), 10**12),
    offset=st.integers(0, 10**12),
    unit=st.sampled_from(["1/1000", "1/90000", "1001/30000", "1/25", "1/15360", "1/10000000"]),
)
def test_microseconds_find_their_time_stamp(begin: int, offset: int, unit: str) -> None:
    time = StreamTime(begin, Fraction(unit))
    found = time.stamp_at(time.microseconds(begin + offset))
    # Where the unit is below a microsecond, no microsecond names a single time stamp.
    assert 0 <= begin + offset - found < max(1, Fraction(1, 1_000_000) / time.unit)
    assert time.seconds(begin) == 0
