# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How much of a difference between two ways to train is chance, in seeds and in queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdps.evaluation.bootstrap import BootstrapInterval

# Numbers drawn at once; bounds the memory, changes no result.
_BLOCK = 2**22


@dataclass(frozen=True)
class GapShare:
    """What part of a gap is closed.

    Attributes:
        share: of the gap between means, with its percentile interval; 1 closes it.
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

    Args:
        values: (S, Q) one number per seed and query.
        resamples, level, seed: see :func:`kdps.evaluation.bootstrap.mean_interval`.
    """
    means = _resampled_means(values[None], resamples, seed)[:, 0]
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
    means = _resampled_means(stacked, resamples, seed)
    # A gap that some resample closes or turns leaves its share open: the interval has no end there.
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(means[:, 1] > 0, means[:, 0] / means[:, 1], np.nan)
    share = float(won / gap) if gap > 0 else float("nan")
    if np.isnan(shares).mean() > (1 - level) / 2:
        interval = BootstrapInterval(share, float("nan"), float("nan"))
    else:
        interval = _interval(share, shares[~np.isnan(shares)], level)
    return GapShare(interval, _interval(float(gap), means[:, 1], level))


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
    lower, upper = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return BootstrapInterval(mean=mean, lower=float(lower), upper=float(upper))
