# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdps.errors import KdpsError
from kdps.evaluation.bootstrap import mean_interval, permutation_test
from kdps.evaluation.comparison import compare_results
from kdps.evaluation.results_reader import read_results

PERSON = (10.0, 10.0, 50.0, 110.0)
Queries = Sequence[tuple[float | None, Sequence[int]]]


def make_content(queries: Queries, key: str = "person_search") -> dict[str, Any]:
    """A results file of queries that are given as (AP, ranks of the true positives)."""
    return {
        "dataset": "made_test",
        "settings": {"score_thresh": 0.5, "weighted": False},
        "versions": {"kdps": "1.0", "numpy": "2.0"},
        "queries": {
            key: [
                {
                    "query_id": i,
                    "image": f"s{i}.jpg",
                    "bbox": list(PERSON),
                    "person_id": i,
                    "AP": ap,
                    "num_truths": 0 if ap is None else 2,
                    "ranks": list(ranks),
                    "top": [],
                }
                for i, (ap, ranks) in enumerate(queries)
            ]
        },
    }


def save(content: Any, path: Path) -> Path:
    path.write_text(json.dumps(content))
    return path


def compare(tmp_path: Path, before: Any, after: Any, **options: Any) -> Any:
    files = [save(before, tmp_path / "a.json"), save(after, tmp_path / "b.json")]
    return compare_results(*map(read_results, files), **options)


BEFORE: Queries = [(50, [2, 4]), (25, [4]), (100, [1, 2]), (None, []), (0, []), (80, [1, 3])]
AFTER: Queries = [(60, [1, 5]), (75, [1, 4]), (100, [1, 2]), (None, []), (30, [3, 9]), (75, [1, 4])]


def test_by_hand(tmp_path: Path) -> None:
    found = compare(tmp_path, make_content(BEFORE), make_content(AFTER))
    assert (found.dataset, found.key, found.num_queries) == ("made_test", "person_search", 5)
    assert (found.mean_ap.before, found.mean_ap.after) == pytest.approx((51, 68))
    # Differences 10, 50, 0, 30, -5 of sum 85; of all sixteen signs of the four that are not zero
    # only those that give 10, 50 and 30 one sign reach 85 again: 4 of 16.
    assert found.mean_ap.interval.mean == pytest.approx(17)
    assert found.mean_ap.p_value == 4 / 16
    assert found.mean_ap.interval == mean_interval(np.array([10.0, 50, 0, 30, -5]), "AP")
    # First in two of five, then in four.
    assert (found.top1.before, found.top1.after) == (40, 80)
    assert found.top1.interval.mean == 40
    assert found.top1.p_value == 2 / 4
    assert (found.better, found.equal, found.worse) == (3, 1, 1)
    assert [(q.query_id, q.ap_before, q.ap_after) for q in found.gained] == [
        (1, 25, 75),
        (4, 0, 30),
        (0, 50, 60),
    ]
    assert [(q.image, q.bbox) for q in found.lost] == [("s5.jpg", PERSON)]
    ranks = [(q.first_rank_before, q.first_rank_after) for q in found.gained]
    assert ranks == [(4, 1), (0, 3), (2, 1)]
    assert found.settings == found.versions == {}


def test_as_dict(tmp_path: Path) -> None:
    before, after = make_content(BEFORE), make_content(AFTER)
    before["settings"]["score_thresh"] = 0.2
    found = compare(tmp_path, before, after, top=2)
    content = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert content["mAP"]["difference"] == pytest.approx(17)
    assert content["mAP"]["lower"] < 17 < content["mAP"]["upper"]
    assert content["settings"] == {"score_thresh": [0.2, 0.5]}
    assert [q["query_id"] for q in content["gained"]] == [1, 4]
    assert content["gained"][1]["first_rank_before"] is None
    assert content["gained"][1]["first_rank_after"] == 3
    assert content["lost"][0]["bbox"] == list(PERSON)


def test_settings_and_versions_that_differ(tmp_path: Path) -> None:
    before, after = make_content(BEFORE), make_content(BEFORE)
    before["settings"] |= {"weighted": True, "method": "A"}
    after["versions"] = {"numpy": "2.1", "torch": "2.8"}
    found = compare(tmp_path, before, after)
    assert found.settings == {"method": ("A", None), "weighted": (True, False)}
    assert found.versions == {"numpy": ("2.0", "2.1")}
    assert found.mean_ap.p_value == 1
    del after["versions"]
    assert compare(tmp_path, before, after).versions == {}


def test_last_digits_are_a_tie(tmp_path: Path) -> None:
    before = make_content([(50, [2]), (100 / 3, [3]), (70, [1])])
    after = make_content([(50, [2]), (100 * (1 / 3 + 1e-14), [3]), (60, [1])])
    found = compare(tmp_path, before, after)
    assert (found.better, found.equal, found.worse) == (0, 2, 1)


def test_order_in_the_file_does_not_matter(tmp_path: Path) -> None:
    before, after = make_content(BEFORE), make_content(AFTER)
    expected = compare(tmp_path, before, after)
    after["queries"]["person_search"].reverse()
    assert compare(tmp_path, before, after) == expected


def test_which_search(tmp_path: Path) -> None:
    before, after = make_content(BEFORE), make_content(AFTER)
    before["queries"]["person_search_g50"] = before["queries"]["person_search"]
    after["queries"]["person_search_g50"] = before["queries"]["person_search"]
    assert compare(tmp_path, before, after).better == 3
    found = compare(tmp_path, before, after, key="person_search_g50")
    assert (found.key, found.better) == ("person_search_g50", 0)
    # Without person_search in both, the only one that they share.
    del after["queries"]["person_search"]
    assert compare(tmp_path, before, after).key == "person_search_g50"


query_lists = st.lists(
    st.tuples(st.integers(0, 100), st.integers(0, 100), st.integers(0, 3), st.integers(0, 3)),
    min_size=2,
    max_size=7,
)


@settings(max_examples=30)
@given(query_lists)
def test_swapping_negates(tmp_path_factory: Any, queries: list[tuple[int, ...]]) -> None:
    folder = tmp_path_factory.mktemp("swap")
    a = make_content([(ap, [rank] if rank else []) for ap, _, rank, _ in queries])
    b = make_content([(ap, [rank] if rank else []) for _, ap, _, rank in queries])
    there, back = compare(folder, a, b), compare(folder, b, a)
    assert (there.better, there.equal, there.worse) == (back.worse, back.equal, back.better)
    for one, other in ((there.mean_ap, back.mean_ap), (there.top1, back.top1)):
        assert (one.before, one.after) == (other.after, other.before)
        assert one.interval.mean == pytest.approx(-other.interval.mean)
        assert one.interval.lower == pytest.approx(-other.interval.upper)
        assert one.p_value == other.p_value
    assert [q.query_id for q in there.gained] == [q.query_id for q in back.lost]
    rise = np.array([b - a for a, b, _, _ in queries], dtype=float)
    assert there.mean_ap.p_value == permutation_test(rise)


def _with_query(**fields: Any) -> Any:
    content = make_content(AFTER)
    content["queries"]["person_search"][1].update(fields)
    return content


def _with(**fields: Any) -> Any:
    return {**make_content(AFTER), **fields}


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (_with(queries={}), r"b\.json: 'queries' has no 'person_search'; it has nothing"),
        (
            _with(queries={"person_search_g50": [], "person_search_g9": []}),
            r"b\.json: .*no 'person_search'; it has person_search_g50, person_search_g9",
        ),
        (_with_query(image="t.jpg"), r"b\.json: query 1 differs .*'image' is 't\.jpg', not 's1"),
        (_with_query(bbox=[1, 2, 3, 4]), r"b\.json: query 1 differs .*a\.json: 'bbox' is \[1\.0"),
        (_with_query(person_id=9), r"b\.json: query 1 differs .*'person_id' is 9, not 1"),
        (_with_query(num_truths=3), r"b\.json: query 1 differs .*'num_truths' is 3, not 2"),
        (make_content(AFTER[:4]), r"b\.json: query 4 of .*a\.json is missing"),
        (make_content([*AFTER, (1, [9])]), r"a\.json: query 6 of .*b\.json is missing"),
    ],
)
def test_other_queries(tmp_path: Path, after: Any, message: str) -> None:
    with pytest.raises(KdpsError, match=message) as error:
        compare(tmp_path, make_content(BEFORE), after)
    assert "\n" not in str(error.value)


def test_settings_that_make_the_truths_others_are_named(tmp_path: Path) -> None:
    before, after = make_content(BEFORE), _with_query(num_truths=3)
    after["settings"] = {**before["settings"], "protocol": "strict", "weighted": True}
    message = r"is 3, not 2 \(its settings are others: protocol: 'strict', not None\)$"
    with pytest.raises(KdpsError, match=message):
        compare(tmp_path, before, after)


def test_the_only_gallery_of_one_is_among_those_of_the_other(tmp_path: Path) -> None:
    one, several = make_content(BEFORE), make_content(AFTER, "person_search_g100")
    one["settings"]["galleries"] = [100]
    one["queries"]["person_search_gt_boxes"] = one["queries"]["person_search"]
    several["queries"]["person_search_g50"] = []
    several["queries"]["person_search_g100_gt_boxes"] = []
    found = compare(tmp_path, one, several, key="person_search_g100")
    assert (found.key, found.better) == ("person_search_g100", 3)
    assert compare(tmp_path, one, one).key == "person_search"
    one["settings"]["galleries"] = [50]
    with pytest.raises(KdpsError, match=r"a\.json: 'queries' has no 'person_search_g100'"):
        compare(tmp_path, one, several, key="person_search_g100")


def test_key_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KdpsError, match=r"a\.json: 'queries' has no 'x'; it has person_search$"):
        compare(tmp_path, make_content(BEFORE), make_content(AFTER), key="x")


def test_several_searches_and_none_is_the_usual_one(tmp_path: Path) -> None:
    content = make_content(BEFORE, "person_search_g50")
    content["queries"]["person_search_g100"] = content["queries"]["person_search_g50"]
    message = r"a\.json: 'queries' has person_search_g50, person_search_g100: name one \(--key\)"
    with pytest.raises(KdpsError, match=message):
        compare(tmp_path, content, content)


@pytest.mark.parametrize("queries", [[], [(50, [2])], [(50, [2]), (None, [])]])
def test_too_few_queries(tmp_path: Path, queries: Queries) -> None:
    content = make_content(queries)
    with pytest.raises(KdpsError, match=r"a\.json: queries\.person_search has [01] queries with"):
        compare(tmp_path, content, content)
