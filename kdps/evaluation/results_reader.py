# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Reading the results file of an evaluation: the AP and the ranks of each query."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdps.data.datasets.files import read_text
from kdps.errors import KdpsError, one_line
from kdps.evaluation.evaluation import DEFAULT_KEY, gallery_key

# Rounding may leave an AP above 100.
_AP_TOLERANCE = 1e-6
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
    fields["queries"] = _with_gallery_names(fields["queries"], fields["settings"])
    return ResultsFile(path=Path(path), **{name: fields[name] for name in types})


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


def _with_gallery_names(
    queries: Mapping[str, Any], settings: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Name the only gallery of a file as a file of several does."""
    galleries = settings.get("galleries")
    if not isinstance(galleries, list) or len(galleries) != 1:
        return queries
    name = gallery_key(galleries[0])
    return {
        **{key.replace(DEFAULT_KEY, name, 1): value for key, value in queries.items()},
        **queries,
    }


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
    "AP": ("from 0 to 100, or null", lambda v: v is None or _is_number(v, 0, 100 + _AP_TOLERANCE)),
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
