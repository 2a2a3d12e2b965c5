# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import re
from xml.etree import ElementTree

import pytest
from ablations import write_ablation

from kdps.ablation.chart import chart
from kdps.ablation.plan import read_plan
from kdps.ablation.table import rows_of


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return read_plan(write_ablation(tmp_path))


def outcome(*ap):
    scores = {"mAP": sum(ap) / len(ap), "top1": 50.0, "recall": 90.0, "AP": 80.0}
    asked = {"dataset": "toy", "query_ids": list(range(len(ap)))}
    return {"query_AP": list(ap), "commit": "a", "seconds": 90.0, **asked, **scores}


def texts(svg):
    """Matplotlib names each text in a comment beside its glyphs."""
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    return re.findall("<!-- (.*?) -->", svg)


def test_a_row_for_each_run_that_is_compared(plan):
    outcomes = {
        "teacher": {0: outcome(80, 60)},
        "student": {0: outcome(40, 40)},
        "all": {0: outcome(60, 50)},
    }
    rows = rows_of(plan, outcomes, resamples=50)
    drawn = chart(plan, rows)
    assert {"teacher", "all"} < set(texts(drawn))
    assert "mAP minus that of student alone, with 95 % interval" in texts(drawn)
    assert "student alone" not in texts(drawn)
    assert chart(plan, rows) == drawn


def test_nothing_to_compare_is_drawn_as_well(plan):
    assert "teacher" not in texts(chart(plan, []))
    only = rows_of(plan, {"student": {0: outcome(40, 40)}}, resamples=10)
    assert "student alone" not in texts(chart(plan, only))
