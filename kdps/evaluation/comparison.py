# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Whether one result is better than another on the same queries, and where.

Works on the files that evaluations write: the AP and the ranks of each query are in them, so that
neither model nor data set is needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdps.errors import KdpsError
from kdps.evaluation.bootstrap import BootstrapInterval, mean_interval, permutation_test
from kdps.evaluation.evaluation import DEFAULT_KEY
from kdps.evaluation.results_reader import QueryTable, ResultsFile, read_queries

# AP in percent that differs by less is the same, summed in another order.
_TIE = 1e-6
# Settings that change the queries' truths.
_WHAT_IS_SEARCHED = ("protocol", "cameras", "galleries")


@dataclass(frozen=True)
class Change:
    """One number of two results, in percent.

    Attributes:
        before: of the first result.
        after: of the second one.
        interval: after minus before, with its paired 95 % bootstrap interval.
        p_value: of the permutation test that nothing but chance makes the difference.
    """

    before: float
    after: float
    interval: BootstrapInterval
    p_value: float

    def as_dict(self) -> dict[str, float]:
        """JSON values."""
        return {
            "before": self.before,
            "after": self.after,
            "difference": self.interval.mean,
            "lower": self.interval.lower,
            "upper": self.interval.upper,
            "p_value": self.p_value,
        }


@dataclass(frozen=True)
class ChangedQuery:
    """One query in two results; AP in percent, first ranks 0 where nothing was found."""

    query_id: int
    image: str
    bbox: tuple[float, ...]
    ap_before: float
    ap_after: float
    first_rank_before: int
    first_rank_after: int

    def as_dict(self) -> dict[str, Any]:
        """JSON values; the first rank is None where nothing was found."""
        return {
            "query_id": self.query_id,
            "image": self.image,
            "bbox": list(self.bbox),
            "AP_before": self.ap_before,
            "AP_after": self.ap_after,
            "first_rank_before": self.first_rank_before or None,
            "first_rank_after": self.first_rank_after or None,
        }


@dataclass(frozen=True)
class Comparison:
    """Two results on the same queries; the second one is held against the first.

    Attributes:
        dataset: name of the set.
        key: of the search.
        num_queries: queries that have a truth; no others count.
        mean_ap: change of the mAP.
        top1: change of the top-1 accuracy.
        better: queries whose AP rose.
        equal: queries whose AP stayed.
        worse: queries whose AP fell.
        gained: those that rose most, the largest rise first.
        lost: those that fell most, the largest fall first.
        settings: setting -> its values before and after, where they differ; None if not given.
        versions: likewise of the packages that both files name.
    """

    dataset: str
    key: str
    num_queries: int
    mean_ap: Change
    top1: Change
    better: int
    equal: int
    worse: int
    gained: tuple[ChangedQuery, ...]
    lost: tuple[ChangedQuery, ...]
    settings: Mapping[str, tuple[Any, Any]]
    versions: Mapping[str, tuple[Any, Any]]

    def as_dict(self) -> dict[str, Any]:
        """JSON values; accuracy in percent."""
        return {
            "dataset": self.dataset,
            "key": self.key,
            "queries": self.num_queries,
            "mAP": self.mean_ap.as_dict(),
            "top1": self.top1.as_dict(),
            "better": self.better,
            "equal": self.equal,
            "worse": self.worse,
            "gained": [query.as_dict() for query in self.gained],
            "lost": [query.as_dict() for query in self.lost],
            "settings": {name: list(values) for name, values in self.settings.items()},
            "versions": {name: list(values) for name, values in self.versions.items()},
        }


def compare_results(
    before: ResultsFile, after: ResultsFile, *, key: str | None = None, top: int = 5, seed: int = 0
) -> Comparison:
    """Hold a result against an earlier one on the same queries.

    Args:
        before: the result to compare with.
        after: the result in question.
        key: which search; by default ``person_search`` or, where the files have not both got it,
            the only one that they share.
        top: how many of the queries that changed most to name, in each direction.
        seed: of bootstrap and permutation test.

    Raises:
        KdpsError: a query is at fault, or the files are of different queries, share no search, or
            have fewer than two queries with a truth.
    """
    # The same queries may come from a set under another name.
    settings = [{"dataset": file.dataset, **file.settings} for file in (before, after)]
    key = _choose_key(before, after, key)
    old, new = read_queries(before, key), read_queries(after, key)
    _check_same_queries(before, after, old, new)
    scored = old.num_truths > 0
    if scored.sum() < 2:
        raise KdpsError(
            f"{before.path}: queries.{key} has {scored.sum()} queries with a truth; a comparison "
            "needs two"
        )
    rise = np.where(scored, new.ap - old.ap, 0)
    rise[np.abs(rise) < _TIE] = 0
    order = np.argsort(rise, kind="stable")
    best_first = np.argsort(-rise, kind="stable")
    hits = [100.0 * (table.first_rank[scored] == 1) for table in (old, new)]
    return Comparison(
        dataset=before.dataset,
        key=key,
        num_queries=int(scored.sum()),
        mean_ap=_change(old.ap[scored], new.ap[scored], rise[scored], key, seed),
        top1=_change(*hits, hits[1] - hits[0], key, seed),
        better=int((rise > 0).sum()),
        equal=int((rise[scored] == 0).sum()),
        worse=int((rise < 0).sum()),
        gained=tuple(_changed(old, new, i) for i in best_first[:top] if rise[i] > 0),
        lost=tuple(_changed(old, new, i) for i in order[:top] if rise[i] < 0),
        settings=_differing(*settings, settings[0].keys() | settings[1].keys()),
        versions=_differing(
            before.versions, after.versions, before.versions.keys() & after.versions.keys()
        ),
    )


def _choose_key(before: ResultsFile, after: ResultsFile, key: str | None) -> str:
    if key is None:
        shared = [name for name in before.queries if name in after.queries]
        if len(shared) > 1 and DEFAULT_KEY not in shared:
            raise KdpsError(f"{before.path}: 'queries' has {', '.join(shared)}: name one (--key)")
        key = shared[0] if len(shared) == 1 else DEFAULT_KEY
    for file in (before, after):
        if key not in file.queries:
            known = ", ".join(file.queries) or "nothing"
            raise KdpsError(f"{file.path}: 'queries' has no {key!r}; it has {known}")
    return key


def _check_same_queries(
    before: ResultsFile, after: ResultsFile, old: QueryTable, new: QueryTable
) -> None:
    for a, b in itertools.zip_longest(_identities(old), _identities(new)):
        if a is None or b is None:
            there, absent = (before, after) if b is None else (after, before)
            query = (a or b)["query_id"]
            raise KdpsError(f"{absent.path}: query {query} of {there.path} is missing")
        for name in a:
            if a[name] != b[name]:
                settings = _differing(before.settings, after.settings, set(_WHAT_IS_SEARCHED))
                why = "; ".join(f"{key}: {y!r}, not {x!r}" for key, (x, y) in settings.items())
                raise KdpsError(
                    f"{after.path}: query {b['query_id']} differs from that of {before.path}: "
                    f"{name!r} is {b[name]!r}, not {a[name]!r}"
                    + (f" (its settings are others: {why})" if why else "")
                )


def _identities(table: QueryTable) -> Iterator[dict[str, Any]]:
    """What makes each query the same in two files."""
    names = ("query_id", "image", "bbox", "person_id", "num_truths")
    columns = (table.query_id, table.images, table.boxes, table.person_id, table.num_truths)
    for values in zip(*(np.asarray(column).tolist() for column in columns), strict=True):
        yield dict(zip(names, values, strict=True))


def _change(before: np.ndarray, after: np.ndarray, rise: np.ndarray, key: str, seed: int) -> Change:
    return Change(
        before=float(before.mean()),
        after=float(after.mean()),
        interval=mean_interval(rise, key, seed=seed),
        p_value=permutation_test(rise, seed=seed),
    )


def _changed(old: QueryTable, new: QueryTable, i: int) -> ChangedQuery:
    return ChangedQuery(
        query_id=int(old.query_id[i]),
        image=old.images[i],
        bbox=tuple(old.boxes[i].tolist()),
        ap_before=float(old.ap[i]),
        ap_after=float(new.ap[i]),
        first_rank_before=int(old.first_rank[i]),
        first_rank_after=int(new.first_rank[i]),
    )


def _differing(
    before: Mapping[str, Any], after: Mapping[str, Any], names: Set[str]
) -> dict[str, tuple[Any, Any]]:
    values = {name: (before.get(name), after.get(name)) for name in sorted(names)}
    return {name: (a, b) for name, (a, b) in values.items() if a != b}
