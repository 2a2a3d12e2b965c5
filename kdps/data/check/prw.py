# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Faults in the files of PRW's layout that its records do not show."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdps.data.check.findings import Level, Report
from kdps.data.datasets.prw import (
    QUERY_FILE,
    UNLABELLED_IN_FILE,
    read_prw_queries,
    read_prw_rows,
)


def check_prw(root: Path, report: Report) -> None:
    """Report what is in training and in test, and boxes that begin left of or above their frame.

    Raises:
        KdpsError: a file is missing or damaged.
    """
    train, test = read_prw_rows(root, "train"), read_prw_rows(root, "test")
    _check_rows("train", train, report)
    _check_rows("test", test, report)
    # PRW's test frames show training identities too; only a search for one of them is at fault.
    trained = {int(pid) for rows in train.values() for pid in rows[:, 0]} - {UNLABELLED_IN_FILE}
    in_both = [
        f"identity {query.person_id}, query {number}"
        for number, query in enumerate(read_prw_queries(root, test))
        if query.person_id in trained
    ]
    report.summarize(Level.ERROR, "queries are of training identities", in_both)
    shared = [image for image in train if image in test]
    report.summarize(Level.ERROR, "frames are in frame_train.mat and in frame_test.mat", shared)


def check_line_ends(root: Path, report: Report) -> None:
    """Report a query file that was saved anew with other line ends."""
    path = root / QUERY_FILE
    try:
        content = path.read_bytes()
    except OSError:
        return  # reported where the queries are read
    if b"\n" in content and b"\r\n" not in content:
        report.warning(
            f"{path} has LF line ends, the published file CRLF: it was saved anew "
            "(read correctly here; readers that cut two bytes off each line lose a digit)"
        )


def _check_rows(split: str, rows_of: dict[str, np.ndarray], report: Report) -> None:
    # Loading cuts a box at the left and top edge before it adds the width, so that in the records
    # a box out of frame lies inside.
    leaving = []
    for image, rows in rows_of.items():
        for number, (_, x, y, w, h) in enumerate(rows.tolist()):
            where = f"image {image}, box {number}"
            if (w > 0 and x + w <= 0) or (h > 0 and y + h <= 0):
                box = f"[{x:g}, {y:g}, {x + w:g}, {y + h:g}]"
                report.error(f"{split}: {where}: {box} is left of or above its frame")
            elif x < 0 or y < 0:
                leaving.append(where)
    text = f"boxes of {split} begin left of or above their frame and are cut there"
    report.summarize(Level.WARNING, text, leaving)
