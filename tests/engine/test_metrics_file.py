# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
from pathlib import Path

from kdps.engine.metrics_file import prepare_metrics_file

LINES = [json.dumps({"iteration": i, "loss": i / 10}) + "\n" for i in (1, 3, 5, 7)]


def test_resume_drops_what_will_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("".join(LINES) + '{"iteration": 9, "lo')
    prepare_metrics_file(path, start_iter=5)
    assert path.read_text() == "".join(LINES[:2])


def test_new_run_sets_the_old_file_aside(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("".join(LINES))
    prepare_metrics_file(path, start_iter=0)
    assert not path.exists()
    assert (tmp_path / "metrics.json.old").read_text() == "".join(LINES)


def test_nothing_to_prepare(tmp_path: Path) -> None:
    prepare_metrics_file(tmp_path / "metrics.json", start_iter=5)
    assert list(tmp_path.iterdir()) == []
