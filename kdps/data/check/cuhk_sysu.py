# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Faults in the files of CUHK-SYSU's layout that its records do not show."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kdps.data.check.findings import Level, Report
from kdps.data.datasets.cuhk_sysu import (
    TRAIN_TEST,
    Place,
    available_gallery_sizes,
    load_cuhk_sysu_protocol,
    protocol_file,
    query_identities,
    read_image_boxes,
    read_train_identities,
)
from kdps.data.protocol import SearchProtocol

_Identity = tuple[str, list[Place]]


def check_cuhk_sysu(root: Path, report: Report) -> None:
    """Report what is in training and in test, and identities that find no box or another's.

    Raises:
        KdpsError: a file is missing or damaged.
    """
    # The list that the records take identities from.
    size = available_gallery_sizes(root)[0]
    protocol = load_cuhk_sysu_protocol(root, size)
    path = root / TRAIN_TEST / "Train.mat"
    train = list(read_train_identities(root))
    _check_splits(train, protocol, path, report)

    boxes = {(image, box) for image, own in read_image_boxes(root).items() for box in own}
    nowhere = [name for name, places in train if boxes.isdisjoint(places)]
    text = f"identities of {path} have no box that equals one of Images.mat"
    report.summarize(Level.ERROR, text, nowhere)
    found = [identity for identity in train if not boxes.isdisjoint(identity[1])]
    _check_boxes(found, boxes, path, report)
    test = [(f"p{number}", places) for number, places in query_identities(protocol)]
    # Queries without a box are reported with the other faults of queries.
    truths = [(name, places[1:]) for name, places in test]
    _check_boxes(truths, boxes, protocol_file(root, size), report)
    _check_owners(train + test, boxes, report)


def _check_splits(
    train: Iterable[_Identity], protocol: SearchProtocol, path: Path, report: Report
) -> None:
    pool = set(protocol.images)
    number_of_query = {q.person_id: number for number, q in enumerate(protocol.queries)}
    in_both, in_pool = [], []
    for name, places in train:
        number = number_of_query.get(int(name[1:])) if name[1:].isdigit() else None
        if number is not None:
            in_both.append(f"{name}, query {number}")
        in_pool += [f"{image}, identity {name}" for image, _ in places if image in pool]
    report.summarize(Level.ERROR, f"identities of {path} are queries as well", in_both)
    report.summarize(Level.ERROR, f"images of {path} are in pool.mat, the test images", in_pool)


def _check_boxes(
    identities: Iterable[_Identity], boxes: set[Place], path: Path, report: Report
) -> None:
    unmatched = [
        f"{name} in {place[0]}"
        for name, places in identities
        for place in places
        if place not in boxes
    ]
    text = f"boxes of {path} equal none of Images.mat and are passed over"
    report.summarize(Level.WARNING, text, unmatched)


def _check_owners(identities: Iterable[_Identity], boxes: set[Place], report: Report) -> None:
    owner: dict[Place, str] = {}
    claimed = []
    for name, places in identities:
        for place in dict.fromkeys(places):
            if place in boxes and owner.setdefault(place, name) != name:
                claimed.append(f"{place[0]}, {owner[place]} and {name}")
    report.summarize(Level.WARNING, "boxes belong to two identities", claimed)
