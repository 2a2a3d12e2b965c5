# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Sizes of the published sets."""

from __future__ import annotations

from kdps.data.check.findings import Report

# CUHK-SYSU: from its paper; the test numbers also from the published TestG100.mat. PRW: counted in
# annotation files of the whole set (its paper says 34,304 labelled boxes; the files hold 34,034).
PUBLISHED = {
    "cuhk_sysu_train": {"images": 11206, "identities": 5532},
    "cuhk_sysu_test": {"images": 6978, "queries": 2900},
    "prw_train": {"images": 5704, "boxes": 18048, "labelled boxes": 14907, "identities": 483},
    "prw_test": {
        "images": 6112,
        "boxes": 25062,
        "labelled boxes": 19127,
        "identities": 544,
        "queries": 2057,
    },
}

# In the CUHK-SYSU paper; whether boxes without area were counted is not said.
APPROXIMATE = {"cuhk_sysu_train": {"boxes": 55272}, "cuhk_sysu_test": {"boxes": 40871}}


def note_other_size(name: str, published: str, counts: dict[str, int], report: Report) -> None:
    """Note where the counts of the split ``name`` are not those of the set ``published``."""
    different = [
        f"{counts[what]} {what} ({expected})"
        for what, expected in PUBLISHED.get(published, {}).items()
        if counts.get(what, expected) != expected
    ]
    if different:
        report.note(f"{name}: not the published size: {', '.join(different)}")


def check_counts(name: str, counts: dict[str, int], report: Report) -> None:
    """Compare counts with those of the published set ``name``, where it is one."""
    for what, expected in PUBLISHED.get(name, {}).items():
        if counts.get(what, expected) != expected:
            report.error(f"{name}: {counts[what]} {what}, the published set has {expected}")
    for what, expected in APPROXIMATE.get(name, {}).items():
        if counts.get(what, expected) != expected:
            report.warning(f"{name}: {counts[what]} {what}, its paper says {expected}")
