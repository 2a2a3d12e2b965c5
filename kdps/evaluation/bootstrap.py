# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How much of a difference in mAP is chance in the choice of queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from kdps.errors import KdpsError
from kdps.evaluation.search import SearchResult

# Resamples computed at once; bounds the memory, changes no number.
_BATCH = 500


@dataclass(frozen=True)
class BootstrapInterval:
    """A mean with its percentile interval.

    Attributes:
        mean: over the queries at hand.
        lower: lower end of the interval.
        upper: upper end.
    """

    mean: float
    lower: float
    upper: float


def map_difference(
    result: SearchResult,
    other: SearchResult,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> BootstrapInterval:
    """mAP of one result minus that of another on the same queries, in percent points.

    The bootstrap is paired: each resample draws queries and takes both results on them, so that
    what is hard for both does not blur the difference (Efron and Tibshirani, "An Introduction to
    the Bootstrap", chapter 13; percentile interval).

    Args:
        result: what is to be better.
        other: on the same queries.
        resamples: how often the queries are drawn.
        level: of the two-sided interval.
        seed: of the drawing.

    Raises:
        KdpsError: the results are not of the same queries, or fewer than two can be scored.
    """
    if len(result.ap) != len(other.ap) or (result.scored != other.scored).any():
        raise KdpsError(f"{result.name} and {other.name}: results of different queries")
    difference = 100 * (result.ap - other.ap)[result.scored]
    return _mean_interval(difference, result.name, resamples, level, seed)


def map_interval(
    result: SearchResult, *, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> BootstrapInterval:
    """mAP of one result in percent, with the interval that the choice of queries leaves open.

    Args:
        result: the result.
        resamples: how often the queries are drawn.
        level: of the two-sided interval.
        seed: of the drawing.

    Raises:
        KdpsError: fewer than two queries can be scored.
    """
    return _mean_interval(100 * result.ap[result.scored], result.name, resamples, level, seed)


def _mean_interval(
    values: np.ndarray, name: str, resamples: int, level: float, seed: int
) -> BootstrapInterval:
    if len(values) < 2:
        raise KdpsError(f"{name}: a bootstrap needs at least two queries")
    interval = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        batch=_BATCH,
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return BootstrapInterval(
        mean=float(values.mean()), lower=float(interval.low), upper=float(interval.high)
    )
