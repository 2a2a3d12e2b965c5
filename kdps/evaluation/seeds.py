# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How much of a difference between two ways to train is chance, in seeds and in queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from kdps.evaluation.bootstrap import BootstrapInterval

# Numbers drawn at once; bounds the memory, changes no result.
_BLOCK = 2**22


@dataclass(frozen=True)
class GapShare:
    """What part of a gap is closed.

    Attributes:
        share: of the gap between means, with its percentile interval, of which an end is infinite
            where chance may have made the gap; 1 closes it, NaN where there is none.
        gap: the gap itself, with its interval.
    """

    share: BootstrapInterval
    gap: BootstrapInterval


def nested_interval(
    values: np.ndarray, *, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> BootstrapInterval:
    """The mean over seeds and queries, with the interval that the choice of both leaves open.

    Each resample draws seeds and queries, both with replacement; a query is drawn for all seeds, as
    it is hard or easy for all of them. Given differences of two results with the same seeds and
    queries, the bootstrap is paired. "Deep reinforcement learning at the edge of the statistical
    precipice" (Agarwal et al., NeurIPS 2021) has the reason to draw runs as well.

    A handful of seeds shows too little of how much seeds differ. What a seed adds to all queries is
    therefore enlarged by what Student's t with S - 1 degrees of freedom exceeds the normal
    distribution by, and by sqrt(S / (S - 1)): 2.7 times with 3 seeds, 1.6 times with 5, 1.2 times
    with 10. One seed says nothing of others: then the interval is of the choice of queries alone.

    Args:
        values: (S, Q) one number per seed and query.
        resamples, level, seed: see :func:`kdps.evaluation.bootstrap.mean_interval`.
    """
    means = _resampled_means(_enlarged(values[None], level), resamples, seed)[:, 0]
    return _interval(float(values.mean()), means, level)


def gap_share(
    value: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> GapShare:
    """How much of the gap between two results a third one closes.

    Args:
        value: (S, Q) one number per seed and query.
        low, high: (S, Q) of both ends of the gap, for the same seeds and queries.
        resamples, level, seed: see :func:`nested_interval`.
    """
    stacked = np.stack([value - low, high - low])
    won, gap = stacked.mean(axis=(1, 2))
    means = _resampled_means(_enlarged(stacked, level), resamples, seed)
    # A resample without a gap could be any share: it stands beyond the end that it is nearer to.
    shares = np.copysign(np.inf, means[:, 0])
    np.divide(means[:, 0], means[:, 1], out=shares, where=means[:, 1] > 0)
    if gap > 0:
        interval = _interval(float(won / gap), shares, level)
    else:
        interval = BootstrapInterval(float("nan"), float("nan"), float("nan"))
    return GapShare(interval, _interval(float(gap), means[:, 1], level))


def _enlarged(values: np.ndarray, level: float) -> np.ndarray:
    """(K, S, Q) values whose means over queries differ more between seeds."""
    seeds = values.shape[1]
    if seeds == 1:
        return values
    quantile = (1 + level) / 2
    factor = stats.t.ppf(quantile, seeds - 1) / stats.norm.ppf(quantile)
    factor *= np.sqrt(seeds / (seeds - 1))
    of_seeds = values.mean(axis=2, keepdims=True)
    return values + (factor - 1) * (of_seeds - of_seeds.mean(axis=1, keepdims=True))


def _resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(resamples, K) means of (K, S, Q) values, of which all K have the same draws."""
    _, seeds, queries = values.shape
    rng = np.random.default_rng(seed)
    all_of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    means = []
    rows = max(1, _BLOCK // max(queries, 1))
    for start in range(0, resamples, rows):
        of_seeds = all_of_seeds[start : start + rows]
        count = len(of_seeds)
        of_queries = rng.multinomial(queries, np.full(queries, 1 / queries), size=count)
        # (count, S) x (K, S, Q) x (count, Q)
        drawn = np.einsum("rs,ksq->rkq", of_seeds, values)
        means.append(np.einsum("rkq,rq->rk", drawn, of_queries) / (seeds * queries))
    return np.concatenate(means)


def _interval(mean: float, means: np.ndarray, level: float) -> BootstrapInterval:
    # Between two values an infinite one would make the quantile undefined.
    lower = np.quantile(means, (1 - level) / 2, method="lower")
    upper = np.quantile(means, (1 + level) / 2, method="higher")
    return BootstrapInterval(mean=mean, lower=float(lower), upper=float(upper))
