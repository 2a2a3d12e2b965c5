# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How much of a mean, or of a difference in mAP, is chance in the choice of queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from kdps.errors import KdpsError
from kdps.evaluation.search import SearchResult

# Resamples computed at once; bounds the memory, changes no number.
_BATCH = 500
# Random bytes drawn at once; bounds the memory.
_BLOCK = 2**20


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


def mean_interval(
    values: np.ndarray,
    name: str,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> BootstrapInterval:
    """The mean over queries, with the interval that their choice leaves open.

    Given the differences of two results on the same queries, the bootstrap is paired: each
    resample draws queries and takes both results on them, so that what is hard for both does not
    blur the difference (Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13;
    percentile interval).

    Args:
        values: (Q,) one number per query, in the unit of the interval.
        name: what the values are of, for the message of an error.
        resamples: how often the queries are drawn.
        level: of the two-sided interval.
        seed: of the drawing.

    Raises:
        KdpsError: there are fewer than two values.
    """
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


def permutation_test(differences: np.ndarray, *, samples: int = 100_000, seed: int = 0) -> float:
    """Two-sided p-value of paired differences whose signs chance alone would have given.

    The statistic is the absolute mean, over all ways to give signs to the differences (Fisher's
    randomisation test). They are counted, each once, where that is no more than ``samples`` ways;
    otherwise as many are drawn and the observed one is added to them, which keeps the test valid
    (Phipson and Smyth, "Permutation p-values should never be zero", 2010).

    Args:
        differences: (Q,) finite numbers.
        samples: how many ways to look at.
        seed: of the drawing.

    Returns:
        A number in (0, 1]; 1 where nothing differs.
    """
    # A zero is the same with either sign.
    values = differences[differences != 0].astype(np.float64)
    # Sums that are equal on paper may differ in their last digits.
    reached = np.abs(values.sum()) - 1e-9 * np.abs(values).sum()
    if 2 ** len(values) <= samples:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
        return float((np.abs(sums) >= reached).mean())
    # Eight signs are one random byte, whose sum is looked up.
    signs = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    padded = np.pad(values, (0, -len(values) % 8)).reshape(-1, 8)
    sums_of_bytes = padded @ signs.T  # (groups, 256)
    groups = np.arange(len(padded))
    rng = np.random.default_rng(seed)
    extreme = 0
    rows = max(1, _BLOCK // len(padded))
    for start in range(0, samples, rows):
        size = (min(rows, samples - start), len(padded))
        drawn = rng.integers(256, size=size, dtype=np.uint8)
        sums = sums_of_bytes[groups, drawn].sum(axis=1)
        extreme += np.count_nonzero(np.abs(sums) >= reached)
    return (extreme + 1) / (samples + 1)


def map_difference(
    result: SearchResult,
    other: SearchResult,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> BootstrapInterval:
    """mAP of one result minus that of another, in percent points, with its paired interval.

    Args:
        result: what is to be better.
        other: on the same queries.
        resamples: as in :func:`mean_interval`.
        level: likewise.
        seed: likewise.

    Raises:
        KdpsError: the results are not of the same queries, or fewer than two can be scored.
    """
    if len(result.ap) != len(other.ap) or (result.scored != other.scored).any():
        raise KdpsError(f"{result.name} and {other.name}: results of different queries")
    difference = 100 * (result.ap - other.ap)[result.scored]
    return mean_interval(difference, result.name, resamples=resamples, level=level, seed=seed)


def map_interval(
    result: SearchResult, *, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> BootstrapInterval:
    """mAP of one result in percent, with its interval.

    Args:
        result: the result.
        resamples: as in :func:`mean_interval`.
        level: likewise.
        seed: likewise.

    Raises:
        KdpsError: fewer than two queries can be scored.
    """
    values = 100 * result.ap[result.scored]
    return mean_interval(values, result.name, resamples=resamples, level=level, seed=seed)
