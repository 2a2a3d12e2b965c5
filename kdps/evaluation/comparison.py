# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Whether one result is better than another on the same queries, and where.

Works on the files that evaluations write: the AP and the ranks of each query are in them, so that
neither model nor data set is needed.
"""

from __future__ import annotations

import itertools
import json
import reprlib
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdps.data.datasets.files import read_text
from kdps.errors import KdpsError, one_line
from kdps.evaluation.bootstrap import BootstrapInterval, mean_interval, permutation_test

DEFAULT_KEY = "person_search"

# AP in percent that differs by less is the same, summed in another order.
_TIE = 1e-6
# Whole numbers of JSON are exact up to here.
_LARGEST = 2**53


@dataclass(frozen=True)
class ResultsFile:
    """A results file, its queries not yet looked at.

    Attributes:
        path: where it was read.
        dataset: name of the set.
        settings: of the evaluation.
        versions: of the packages; empty if the file has none.
        queries: key of a search ("person_search_g100") -> its queries, as in the file.
    """

    path: Path
    dataset: str
    settings: Mapping[str, Any]
    versions: Mapping[str, Any]
    queries: Mapping[str, Any]


@dataclass(frozen=True)
class QueryTable:
    """The queries of one search of a results file, by ascending ``query_id``. Q = queries.

    Attributes:
        query_id: (Q,) int64.
        images: Q names.
        boxes: (Q, 4) XYXY in pixels.
        person_id: (Q,) int64.
        num_truths: (Q,) int64.
        ap: (Q,) percent; NaN for a query without a truth.
        first_rank: (Q,) int64 rank of the first true positive; 0 where nothing was found.
    """

    query_id: np.ndarray
    images: tuple[str, ...]
    boxes: np.ndarray
    person_id: np.ndarray
    num_truths: np.ndarray
    ap: np.ndarray
    first_rank: np.ndarray


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


def read_results(path: str | Path) -> ResultsFile:
    """Read the JSON file of an evaluation.

    Raises:
        KdpsError: the file is missing, no JSON, or not of an evaluation.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise KdpsError(f"{path} is truncated or no JSON ({one_line(error)})") from error
    types = {"dataset": str, "settings": dict, "versions": dict, "queries": dict}
    fields = {"versions": {}, **content} if isinstance(content, dict) else {}
    for name, kind in types.items():
        if not isinstance(fields.get(name), kind):
            fault = "is at fault" if name in fields else "is missing"
            raise KdpsError(f"{path} is not the result of an evaluation: {name!r} {fault}")
    return ResultsFile(path=Path(path), **{name: fields[name] for name in types})


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


def read_queries(file: ResultsFile, key: str) -> QueryTable:
    """The queries of one search.

    Raises:
        KdpsError: a query lacks a field or has one at fault, or two have the same ``query_id``.
    """
    entries = file.queries[key]
    if not isinstance(entries, list):
        raise KdpsError(f"{file.path}: queries.{key} should be a list")
    places = [f"{file.path}: queries.{key}[{number}]" for number in range(len(entries))]
    columns = {
        name: [_field(entry, name, where) for entry, where in zip(entries, places, strict=True)]
        for name in _FIELDS
    }
    for ap, truths, where in zip(columns["AP"], columns["num_truths"], places, strict=True):
        if (ap is None) != (truths == 0):
            raise KdpsError(f"{where}: 'AP' is {ap} with {truths} truths")
    query_id = np.array(columns["query_id"], dtype=np.int64)
    order = np.argsort(query_id, kind="stable")
    twice = np.flatnonzero(np.diff(query_id[order]) == 0)
    if twice.size:
        raise KdpsError(f"{places[order[twice[0] + 1]]}: 'query_id' is that of another query")
    first_rank = [min(ranks, default=0) for ranks in columns["ranks"]]
    return QueryTable(
        query_id=query_id[order],
        images=tuple(columns["image"][i] for i in order),
        boxes=np.array(columns["bbox"], dtype=np.float64).reshape(-1, 4)[order],
        person_id=np.array(columns["person_id"], dtype=np.int64)[order],
        num_truths=np.array(columns["num_truths"], dtype=np.int64)[order],
        ap=np.array(columns["AP"], dtype=np.float64)[order],  # None becomes NaN
        first_rank=np.array(first_rank, dtype=np.int64)[order],
    )


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _LARGEST


def _is_number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(_is_number(v, -_LARGEST, _LARGEST) for v in value)
    )


def _is_ranks(value: Any) -> bool:
    return isinstance(value, list) and all(_is_whole(rank, 1) for rank in value)


# Field of a query -> what it should be, and whether a value is.
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "query_id": ("a whole number from 0", lambda v: _is_whole(v, 0)),
    "image": ("a name", lambda v: isinstance(v, str)),
    "bbox": ("four numbers", _is_box),
    "person_id": ("a whole number", lambda v: _is_whole(v, -_LARGEST)),
    "num_truths": ("a whole number from 0", lambda v: _is_whole(v, 0)),
    "AP": ("from 0 to 100, or null", lambda v: v is None or _is_number(v, 0, 100 + _TIE)),
    "ranks": ("a list of whole numbers from 1", _is_ranks),
}


def _field(entry: Any, name: str, where: str) -> Any:
    if not isinstance(entry, dict) or name not in entry:
        raise KdpsError(f"{where}: {name!r} is missing")
    wanted, is_right = _FIELDS[name]
    if not is_right(entry[name]):
        found = reprlib.repr(entry[name])
        raise KdpsError(f"{where}: {name!r} should be {wanted}, it is {found}")
    return entry[name]


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
                raise KdpsError(
                    f"{after.path}: query {b['query_id']} differs from that of {before.path}: "
                    f"{name!r} is {b[name]!r}, not {a[name]!r}"
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
