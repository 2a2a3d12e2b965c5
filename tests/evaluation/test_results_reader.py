# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdps.errors import KdpsError
from kdps.evaluation.results_file import describe_queries, write_json
from kdps.evaluation.results_reader import read_queries, read_results
from kdps.evaluation.search import score_search

PERSON = (10.0, 10.0, 50.0, 110.0)
KEY = "person_search"


def make_content(*queries: dict[str, Any]) -> dict[str, Any]:
    return {
        "dataset": "made_test",
        "settings": {"score_thresh": 0.5},
        "versions": {"kdps": "1.0"},
        "queries": {KEY: list(queries)},
    }


def make_query(number: int = 0, **fields: Any) -> dict[str, Any]:
    usual = {
        "query_id": number,
        "image": f"s{number}.jpg",
        "bbox": list(PERSON),
        "person_id": number,
        "AP": 75,
        "num_truths": 2,
        "ranks": [1, 4],
    }
    return {**usual, **fields}


def read(content: Any, folder: Path) -> Any:
    (folder / "b.json").write_text(json.dumps(content))
    return read_queries(read_results(folder / "b.json"), KEY)


def test_reads_what_the_evaluation_writes(task: Callable[..., Any], tmp_path: Path) -> None:
    same, like = np.eye(4, dtype=np.float32)[0], np.full(4, 0.5, dtype=np.float32)
    elsewhere = (200.0, 10.0, 240.0, 110.0)
    images = [[(elsewhere, 0.9, same)], [(PERSON, 0.9, like)], []]
    detections, protocol = task(images, [(1, PERSON), (2, PERSON)])
    result = score_search(detections, protocol)
    content = make_content(*describe_queries(result, protocol, detections))
    write_json(content, tmp_path / "written.json")
    table = read_queries(read_results(tmp_path / "written.json"), KEY)
    assert table.ap.tolist() == [25]
    assert (table.first_rank.tolist(), table.num_truths.tolist()) == ([2], [2])
    assert (table.images, table.boxes.tolist()) == (("s0.jpg",), [list(PERSON)])


def _with(**fields: Any) -> Any:
    return {**make_content(make_query()), **fields}


def _second(**fields: Any) -> Any:
    return make_content(make_query(), make_query(1, **fields))


def _without(query: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in query.items() if key != name}


_QUERY = r"b\.json: queries\.person_search\[1\]: "


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], r"b\.json is not the result of an evaluation: 'dataset' is missing"),
        ({"rows": []}, r"b\.json is not the result of an evaluation: 'dataset' is missing"),
        (_with(settings=None), r"b\.json is not the result .*: 'settings' is at fault"),
        (_with(queries=[]), r"b\.json is not the result .*: 'queries' is at fault"),
        (_with(versions="1.0"), r"b\.json is not the result .*: 'versions' is at fault"),
        (_with(queries={"person_search": 3}), r"b\.json: queries\.person_search should be a list"),
        (_with(queries={"person_search": [7]}), r"person_search\[0\]: 'query_id' is missing"),
        (
            make_content(make_query(), _without(make_query(1), "num_truths")),
            _QUERY + "'num_truths' is missing",
        ),
        (_second(AP=100.5), _QUERY + r"'AP' should be from 0 to 100, or null, it is 100\.5"),
        (_second(AP=-1), _QUERY + "'AP' should be from 0 to 100"),
        (_second(AP=float("nan")), _QUERY + "'AP' should be from 0 to 100"),
        (_second(AP="high"), _QUERY + "'AP' should be from 0 to 100"),
        (_second(AP=True), _QUERY + "'AP' should be from 0 to 100"),
        (_second(AP=None), _QUERY + "'AP' is None with 2 truths"),
        (_second(num_truths=0), _QUERY + "'AP' is 75 with 0 truths"),
        (_second(query_id=-1), _QUERY + "'query_id' should be a whole number from 0"),
        (_second(query_id=10**30), _QUERY + "'query_id' should be a whole number from 0"),
        (_second(query_id=0), _QUERY + "'query_id' is that of another query"),
        (_second(bbox=[1, 2, 3]), _QUERY + "'bbox' should be four numbers"),
        (_second(ranks=[0]), _QUERY + "'ranks' should be a list of whole numbers from 1"),
        (_second(ranks=None), _QUERY + "'ranks' should be a list of whole numbers from 1"),
    ],
)
def test_bad_file(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(KdpsError, match=message) as error:
        read(content, tmp_path)
    assert "\n" not in str(error.value)


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(KdpsError, match="it is .*1, 1, .*") as error:
        read(_second(ranks=[1] * 5000 + [0]), tmp_path)
    assert len(str(error.value)) < 300


def test_the_only_gallery_has_its_name_too(tmp_path: Path) -> None:
    content = make_content(make_query())
    content["settings"]["galleries"] = [100]
    (tmp_path / "b.json").write_text(json.dumps(content))
    queries = read_results(tmp_path / "b.json").queries
    assert sorted(queries) == [KEY, "person_search_g100"]
    assert queries["person_search_g100"] == queries[KEY]


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(KdpsError, match=r"none\.json: No such file"):
        read_results(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('{"dataset": ')
    with pytest.raises(KdpsError, match=r"cut\.json is truncated or no JSON"):
        read_results(tmp_path / "cut.json")
    (tmp_path / "digits.json").write_text('{"dataset": ' + "9" * 5000 + "}")
    with pytest.raises(KdpsError, match=r"digits\.json is "):
        read_results(tmp_path / "digits.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KdpsError, match=r"bytes\.json is no text file"):
        read_results(tmp_path / "bytes.json")
