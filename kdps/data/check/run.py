# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The whole check of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdps.data.check.findings import Report
from kdps.data.check.images import check_images
from kdps.data.check.people import check_boxes, check_identities, count_people
from kdps.data.check.published import check_counts, note_other_size
from kdps.data.check.search import check_galleries, check_queries, check_same_queries
from kdps.data.sources import SplitSource


def check_split(
    source: SplitSource,
    report: Report,
    *,
    gallery_sizes: Sequence[int] | None = None,
    decode: bool = False,
) -> dict[str, int]:
    """Check one split.

    Args:
        source: the split.
        report: takes the findings.
        gallery_sizes: galleries to check beside the default one; None takes all that the set has.
        decode: read all pixels of the images, not only the headers.

    Returns:
        The counts of the split; empty if it could not be read.
    """
    counts: dict[str, int] = {}
    with report.catch():
        records = source.load()
        counts = count_people(records)
        check_images(source.name, records, report, decode=decode)
        check_boxes(source.name, records, report)
        if source.protocol is None:
            check_identities(source.name, records, report)
        else:
            counts["queries"] = _check_search(source, records, report, gallery_sizes)
        if source.resembles is None:
            check_counts(source.name, counts, report)
        else:
            note_other_size(source.name, source.resembles, counts, report)
    return counts


def _check_search(
    source: SplitSource,
    records: list[dict[str, Any]],
    report: Report,
    gallery_sizes: Sequence[int] | None,
) -> int:
    reference = source.protocol(None)
    if reference.images != tuple(record["image_id"] for record in records):
        report.error(f"{reference.name}: its images are not those of the records in their order")
        return len(reference.queries)
    check_queries(reference, records, report)
    check_galleries(reference, records, report)
    if gallery_sizes is None:
        gallery_sizes = [size for size in source.gallery_sizes() if isinstance(size, int)]
    for size in gallery_sizes:
        other = source.protocol(size)
        if other.name != reference.name:
            check_same_queries(reference, other, report)
            check_galleries(other, records, report)
    return len(reference.queries)
