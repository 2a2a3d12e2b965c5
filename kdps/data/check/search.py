# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Can each query be answered?"""

from __future__ import annotations

from typing import Any

import numpy as np

from kdps.data.check.findings import Level, Report
from kdps.data.check.people import box_fault, leaves_image
from kdps.data.protocol import Gallery, SearchProtocol


def check_queries(protocol: SearchProtocol, records: list[dict[str, Any]], report: Report) -> None:
    """Report queries that are at fault, asked twice, or of somebody unknown.

    Args:
        protocol: of the test split.
        records: the test split, for image sizes and identities.
        report: takes the findings.
    """
    by_name = {record["image_id"]: record for record in records}
    known = {a["person_id"] for record in records for a in record["annotations"]}
    first: dict[tuple[str, tuple[float, ...]], int] = {}
    leaving, elsewhere = [], []
    for number, query in enumerate(protocol.queries):
        where = f"{protocol.name}, query {number}"
        record = by_name.get(query.image)
        if record is None:
            report.error(f"{where}: image {query.image!r} is not in the test set")
            continue
        fault = box_fault(query.bbox, record)
        if fault:
            report.error(f"{where}: box {fault}")
        elif leaves_image(query.bbox, record):
            leaving.append(where)
        earlier = first.setdefault((query.image, query.bbox), number)
        if protocol.queries[earlier].person_id != query.person_id:
            other = protocol.queries[earlier].person_id
            report.error(
                f"{where}: asks for identity {query.person_id}, query {earlier} with the same box "
                f"for {other}"
            )
        elif earlier != number:
            report.error(f"{where}: is the same as query {earlier}")
        if query.person_id not in known:
            report.error(f"{where}: unknown identity {query.person_id}: no box of the set has it")
        elif not any(a["person_id"] == query.person_id for a in record["annotations"]):
            elsewhere.append(where)
    report.summarize(Level.WARNING, "query boxes reach out of their image", leaving)
    report.summarize(
        Level.WARNING, "queries are of a person who has no box in the query's image", elsewhere
    )


def check_galleries(
    protocol: SearchProtocol, records: list[dict[str, Any]], report: Report
) -> None:
    """Report galleries without the person, boxes at fault, and images that are listed oddly.

    Args:
        protocol: of the test split.
        records: the test split, for image sizes and identities.
        report: takes the findings.
    """
    index_of = {record["image_id"]: index for index, record in enumerate(records)}
    known = {a["person_id"] for record in records for a in record["annotations"]}
    repeated, own = [], []
    for number, (query, gallery) in enumerate(
        zip(protocol.queries, protocol.galleries, strict=True)
    ):
        where = f"{protocol.name}, query {number}"
        # An unknown identity is reported with its query.
        if not len(gallery.truth_images) and query.person_id in known:
            report.error(f"{where}: identity {query.person_id} is in no image of its gallery")
        for index, box in zip(gallery.truth_images, gallery.truth_boxes, strict=True):
            fault = box_fault(box, records[index])
            if fault:
                image = records[index]["image_id"]
                report.error(f"{where}: the person's box in {image}: {fault}")
        if gallery.images is not None:
            if np.bincount(gallery.images).max(initial=0) > 1:
                repeated.append(f"query {number}")
            if index_of.get(query.image) in gallery.images:
                own.append(f"query {number}")
    report.summarize(Level.NOTE, f"galleries of {protocol.name} list an image twice", repeated)
    report.summarize(Level.NOTE, f"galleries of {protocol.name} hold the query's own image", own)


def check_same_queries(reference: SearchProtocol, other: SearchProtocol, report: Report) -> None:
    """Report two gallery sizes of a set that do not ask for the same people in the same places.

    The records of a set take identities from the smallest size, so that it should have all truths.
    """
    pairs = zip(reference.queries, other.queries, strict=False)
    different = [number for number, (a, b) in enumerate(pairs) if a != b]
    if len(reference.queries) != len(other.queries):
        counts = f"{len(other.queries)} queries, {reference.name} has {len(reference.queries)}"
        report.error(f"{other.name} has {counts}")
    elif different:
        report.error(f"{other.name}: query {different[0]} is another one than in {reference.name}")
    else:
        small, large = sorted((reference, other), key=_count_searched)
        galleries = enumerate(zip(small.galleries, large.galleries, strict=True))
        lacking = [
            f"query {number}"
            for number, (in_small, in_large) in galleries
            if _truths(in_large) - _truths(in_small)
        ]
        text = f"galleries of {small.name} lack places of the person that {large.name} has"
        report.summarize(Level.WARNING, text, lacking)


def _count_searched(protocol: SearchProtocol) -> int:
    total = len(protocol.images)
    return sum(
        total - len(g.excluded) if g.images is None else len(g.images) for g in protocol.galleries
    )


def _truths(gallery: Gallery) -> set[tuple[int, tuple[float, ...]]]:
    boxes = map(tuple, gallery.truth_boxes.tolist())
    return set(zip(gallery.truth_images.tolist(), boxes, strict=True))
