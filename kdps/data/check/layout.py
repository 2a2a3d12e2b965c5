# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Faults that show only in a layout's own files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from kdps.data.check.cuhk_sysu import check_cuhk_sysu
from kdps.data.check.findings import Report
from kdps.data.check.prw import check_line_ends, check_prw
from kdps.data.datasets.layouts import Layout, find_signs, require_one_layout


def check_layout(root: Path, layout: Layout, report: Report) -> None:
    """Report faults of a set as a whole.

    Args:
        root: folder of the set.
        layout: the one it was read in.
        report: takes the findings.
    """
    # What cannot be looked into is reported where it is read, and a set that was read without
    # signs of its layout is no worse for it.
    with report.catch(), suppress(OSError):
        require_one_layout(root, find_signs(root))
    if layout.name == "cuhk-sysu":
        with report.catch():
            check_cuhk_sysu(root, report)
    elif layout.name == "prw":
        with report.catch():
            check_prw(root, report)
        check_line_ends(root, report)
