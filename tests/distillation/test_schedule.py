# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest

from kdps.distillation.schedule import weight_factor


def factors(iterations, **settings):
    return [weight_factor(i, 8, **settings) for i in iterations]


def test_constant_by_default():
    assert factors([0, 3, 7]) == [1.0, 1.0, 1.0]


def test_warm_up_rises_to_one_and_then_stays():
    assert factors(range(6), warmup=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_after_the_stop_nothing_counts():
    assert factors([3, 4, 7], stop=4) == [1.0, 0.0, 0.0]


def test_schedules_fall_from_the_warm_up_to_the_stop():
    assert factors([2, 4, 5], warmup=2, stop=6, schedule="linear") == [1.0, 0.5, 0.25]
    assert factors([2, 4], warmup=2, stop=6, schedule="cosine") == pytest.approx([1.0, 0.5])
    # Without a stop they fall to the end of the training.
    assert factors([0, 4], schedule="linear") == [1.0, 0.5]
