# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import errno
from pathlib import Path

from kdps.data.check import Report, check_layout
from kdps.data.datasets.layouts import LAYOUTS, detect_layout, mot_layout
from kdps.data.datasets.mot import MOTOptions
from kdps.utils.testing_layouts import TinyMOT, tiny_json, write_json


def findings_of(root, layout):
    report = Report()
    check_layout(root, layout, report)
    return report.findings


def test_a_file_with_another_suffix_is_no_fault(tmp_path):
    path = write_json(tmp_path, tiny_json()).rename(tmp_path / "people.txt")
    assert findings_of(path, LAYOUTS["coco"]) == []


def test_sequences_in_subfolders_are_no_fault(tmp_path):
    TinyMOT().write(tmp_path / "set" / "deep")
    layout = mot_layout(MOTOptions(sequences=("deep/cam-a",)))
    assert findings_of(tmp_path / "set", layout) == []


def test_a_folder_of_annotations_alone_is_no_second_layout(tmp_path):
    root = TinyMOT().write(tmp_path / "set")
    (root / "annotations").mkdir()
    assert detect_layout(root).name == "mot"
    assert findings_of(root, LAYOUTS["mot"]) == []


def test_what_cannot_be_looked_into_is_left_to_the_reader(tmp_path, monkeypatch):
    def closed(self, pattern):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "glob", closed)
    assert findings_of(tmp_path, LAYOUTS["mot"]) == []
