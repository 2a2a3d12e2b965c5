# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Faults that show only in a layout's own files: above all, what is in training and in test."""

from __future__ import annotations

from pathlib import Path

from kdps.data.check.findings import Level, Report
from kdps.data.datasets.cuhk_sysu import (
    TRAIN_TEST,
    load_cuhk_sysu_protocol,
    read_train_identities,
)
from kdps.data.datasets.layouts import Layout, detect_layout
from kdps.data.datasets.prw import QUERY_FILE, load_prw_protocol, read_prw_frames
from kdps.data.records import UNLABELLED


def check_layout(root: Path, layout: Layout, report: Report) -> None:
    """Report faults of a set as a whole.

    Args:
        root: folder of the set.
        layout: the one it was read in.
        report: takes the findings.
    """
    with report.catch():
        detect_layout(root)
    if layout.name == "cuhk-sysu":
        with report.catch():
            _check_cuhk_sysu(root, report)
    elif layout.name == "prw":
        with report.catch():
            _check_prw(root, report)
        _check_line_ends(root / QUERY_FILE, report)


def _check_cuhk_sysu(root: Path, report: Report) -> None:
    protocol = load_cuhk_sysu_protocol(root, None)
    pool = set(protocol.images)
    number_of_query = {q.person_id: number for number, q in enumerate(protocol.queries)}
    path = root / TRAIN_TEST / "Train.mat"
    in_both, in_pool = [], []
    for name, scenes in read_train_identities(root):
        number = number_of_query.get(int(name[1:])) if name[1:].isdigit() else None
        if number is not None:
            in_both.append(f"{name}, query {number}")
        in_pool += [f"{image}, identity {name}" for image, _ in scenes if image in pool]
    report.summarize(Level.ERROR, f"identities of {path} are queries as well", in_both)
    report.summarize(Level.ERROR, f"images of {path} are in pool.mat, the test images", in_pool)


def _check_prw(root: Path, report: Report) -> None:
    train = read_prw_frames(root, "train")
    test = {record["image_id"] for record in read_prw_frames(root, "test")}
    # PRW's test frames show training identities too; only a search for one of them is at fault.
    trained = {a["person_id"] for r in train for a in r["annotations"]} - {UNLABELLED}
    in_both = [
        f"identity {query.person_id}, query {number}"
        for number, query in enumerate(load_prw_protocol(root).queries)
        if query.person_id in trained
    ]
    report.summarize(Level.ERROR, "queries are of training identities", in_both)
    shared = [record["image_id"] for record in train if record["image_id"] in test]
    report.summarize(Level.ERROR, "frames are in frame_train.mat and in frame_test.mat", shared)


def _check_line_ends(path: Path, report: Report) -> None:
    try:
        content = path.read_bytes()
    except OSError:
        return  # reported where the queries are read
    if b"\n" in content and b"\r\n" not in content:
        report.warning(
            f"{path} has LF line ends, the published file CRLF: it was saved anew "
            "(read correctly here; readers that cut two bytes off each line lose a digit)"
        )
