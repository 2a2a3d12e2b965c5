# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
from pathlib import Path

from kdps.report.history import read_history


def test_curves_and_damaged_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    records = [
        {"iteration": 19, "total_loss": 2.0, "loss_oim": 1.5, "lr": 0.1},
        {"iteration": 39, "total_loss": 1.0, "loss_oim": 0.7, "person_search/mAP": 31.0},
        {"iteration": 59, "tiny/person_search/mAP": 44.0, "other/person_search/mAP": 1.0},
        {"lr": 0.1},
    ]
    lines = [json.dumps(record) for record in records]
    path.write_text("\n".join([*lines, '{"iteration": 79, "total_lo']))
    history = read_history(path, "tiny")
    assert history.losses == {
        "total_loss": [(19, 2.0), (39, 1.0)],
        "loss_oim": [(19, 1.5), (39, 0.7)],
    }
    assert history.search_map == [(39, 31.0), (59, 44.0)]


def test_nothing_to_show(tmp_path: Path) -> None:
    assert read_history(tmp_path / "metrics.json", "tiny") is None
    (tmp_path / "metrics.json").write_text(json.dumps({"iteration": 1, "lr": 0.1}))
    assert read_history(tmp_path / "metrics.json", "tiny") is None
