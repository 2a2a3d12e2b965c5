# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from kdps.report.content import ReportContent, ReportSettings, gather_content
from kdps.report.rows import format_difference, format_rows
from kdps.structures.detections import Detections
from kdps.utils.testing_set import TINY_TEST


def test_four_rows_in_order(content: ReportContent) -> None:
    assert [row.key for row in content.rows] == ["model", "random", "histogram", "gt_boxes"]
    bound = content.rows[3].metrics
    assert bound == {"mAP": 100.0, "top1": 100.0, "top5": 100.0, "top10": 100.0}
    # One of the images is missed as a whole, so that the persons in it are not all found.
    assert content.rows[0].metrics["mAP"] < 90
    for row in content.rows:
        assert row.interval.lower <= row.metrics["mAP"] <= row.interval.upper


def test_difference_and_facts(content: ReportContent) -> None:
    model, histogram = content.rows[0], content.rows[2]
    lead = model.metrics["mAP"] - histogram.metrics["mAP"]
    assert content.difference.mean == pytest.approx(lead)
    assert content.facts == {
        "test images": 12,
        "annotated persons": 24,
        "queries": 4,
        "identities searched for": 4,
        "gallery images per query (median)": 11,
    }
    assert content.detection.recall == pytest.approx(22 / 24)


def test_without_embeddings_of_annotated_boxes(detections: Detections) -> None:
    partial = replace(detections, gt_count=None, gt_emb=None)
    content = gather_content(partial, TINY_TEST, ReportSettings(num_queries=0))
    assert [row.key for row in content.rows] == ["model", "random", "histogram"]
    assert content.shown == ()
    assert "annotated boxes" not in content.summary()


def test_summary_states_the_numbers(content: ReportContent) -> None:
    metrics = content.rows[0].metrics
    found = round(metrics["top1"] / 100 * 4)
    summary = content.summary()
    assert f"right person for {found} of 4 queries" in summary
    assert f"mAP is {metrics['mAP']:.1f}" in summary
    assert "annotated boxes in place of its own it reaches 100.0" in summary


def test_json_values(content: ReportContent) -> None:
    data = json.loads(json.dumps(content.as_dict(), allow_nan=False))
    assert [row["row"] for row in data["rows"]] == ["model", "random", "histogram", "gt_boxes"]
    assert data["rows"][0]["mAP"] == content.rows[0].metrics["mAP"]
    assert set(data["detection"]) == {"recall", "AP"}
    assert data["settings"]["seed of the report"] == "0"


def test_console_table(content: ReportContent) -> None:
    lines = format_rows(content.rows).splitlines()
    assert [line[:12].strip() for line in lines[2:]] == [
        "Trained mode",
        "Random embed",
        "Colour histo",
        "Model in ann",
    ]
    assert f"{content.rows[0].metrics['mAP']:.1f}" in lines[2]


def test_difference_in_words(content: ReportContent) -> None:
    lead = replace(content.difference, mean=12.34, lower=5.0, upper=20.0)
    assert format_difference(lead).startswith("12.3 points of mAP above")
    assert "interval 5.0 to 20.0" in format_difference(lead)
    behind = replace(content.difference, mean=-3.0, lower=-8.0, upper=1.0)
    assert format_difference(behind).startswith("3.0 points of mAP below")
    assert "interval -1.0 to 8.0" in format_difference(behind)


def test_seed_decides_the_random_row(detections: Detections, content: ReportContent) -> None:
    again = gather_content(detections, TINY_TEST, ReportSettings(num_queries=0))
    other = gather_content(detections, TINY_TEST, ReportSettings(num_queries=0, seed=1))
    assert np.array_equal(again.rows[1].result.ap, content.rows[1].result.ap)
    assert not np.array_equal(other.rows[1].result.ap, content.rows[1].result.ap)
