# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
from ablations import write_ablation

from kdps.ablation.plan import read_plan
from kdps.ablation.table import markdown, rows_of
from kdps.errors import KdpsError


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return read_plan(write_ablation(tmp_path))


def outcome(*ap, dataset="toy", ids=None, commit="a"):
    scores = {"top1": 50.0, "recall": 90.0, "AP": 80.0, "seconds": 90.0}
    asked = {"dataset": dataset, "query_ids": ids or list(range(len(ap)))}
    return {"query_AP": list(ap), "mAP": sum(ap) / len(ap), "commit": commit, **asked, **scores}


def test_runs_are_compared_with_the_same_seeds(plan):
    outcomes = {
        "teacher": {0: outcome(80, 60)},
        "student": {0: outcome(40, 40), 1: outcome(10, 10)},
        "all": {0: outcome(60, 50), 1: outcome(30, 30)},
    }
    teacher, student, everything = rows_of(plan, outcomes, resamples=200)
    assert (student.scores["mAP"], student.difference, student.share) == (25.0, None, None)
    assert teacher.difference.mean == 30.0
    assert teacher.share is None
    # (15 + 20) / 2 over both seeds; the share over the seed that the teacher has: 15 of 30.
    assert everything.difference.mean == 17.5
    assert everything.share.mean == 0.5
    assert everything.minutes == 1.5
    assert everything.seeds == (0, 1)
    lines = markdown(plan, [teacher, student, everything]).splitlines()
    assert "minus student alone" in lines[0]
    assert lines[2].split("|")[1].strip() == "teacher"
    assert lines[4].split("|")[2].strip() == "42.5"
    assert lines[4].split("|")[4].strip().startswith("+17.5 (")
    # The teacher has one of the two seeds.
    assert lines[4].split("|")[5].strip() == "50% (50% to 50%; 1 seed)"
    assert len(lines) == 7


def test_runs_of_different_code_are_told(plan):
    outcomes = {"student": {0: outcome(1, 2)}, "all": {0: outcome(1, 2, commit="b")}}
    text = markdown(plan, rows_of(plan, outcomes, resamples=10))
    assert text.splitlines()[-1] == "The runs are of different code: a, b."


def test_what_is_not_done_yet_leaves_cells_empty(plan):
    rows = rows_of(plan, {"all": {1: outcome(60, 50)}}, resamples=10)
    assert [row.run.name for row in rows] == ["all"]
    assert rows[0].difference is None
    rows = rows_of(plan, {"all": {1: outcome(60, 50)}, "student": {0: outcome(1, 2)}}, resamples=10)
    assert rows[1].difference is None


def test_a_gap_that_is_none_is_said(plan):
    outcomes = {name: {0: outcome(50, 40)} for name in ("teacher", "student", "all")}
    rows = rows_of(plan, outcomes, resamples=50)
    assert "no gap" in markdown(plan, rows)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (outcome(1, 2, 3), "3 of toy, 2 of toy"),
        (outcome(1), "1 of toy, 2 of toy"),
        (outcome(1, 2, dataset="play"), "2 of play, 2 of toy"),
        (outcome(1, 2, ids=[0, 2]), "2 of toy, 2 of toy"),
    ],
)
def test_other_queries_are_refused(plan, other, said):
    outcomes = {"student": {0: outcome(1, 2)}, "all": {1: other}}
    with pytest.raises(KdpsError) as found:
        rows_of(plan, outcomes, resamples=10)
    assert str(found.value) == (
        f"all, seed 1, and student, seed 0, were evaluated on different queries ({said})"
    )
