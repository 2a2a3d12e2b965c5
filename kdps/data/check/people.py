# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Are the boxes in their images, and do the identities teach anything?"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from kdps.data.check.findings import Level, Report
from kdps.data.records import UNLABELLED


def check_boxes(name: str, records: list[dict[str, Any]], report: Report) -> None:
    """Report boxes without area or outside their image (errors), and odd ones (warnings).

    Args:
        name: of the split, for messages.
        records: the split; position is checked where ``height`` and ``width`` are known.
        report: takes the findings.
    """
    leaving, twice, same_person = [], [], []
    for record in records:
        seen_boxes, seen_pids = set(), set()
        for number, annotation in enumerate(record["annotations"]):
            where = f"image {record['image_id']}, box {number}"
            box, pid = tuple(annotation["bbox"]), annotation["person_id"]
            fault = box_fault(box, record)
            if fault:
                report.error(f"{name}: {where}: {fault}")
            elif leaves_image(box, record):
                leaving.append(where)
            if box in seen_boxes:
                twice.append(where)
            if pid in seen_pids:
                same_person.append(f"{where}, identity {pid}")
            seen_boxes.add(box)
            seen_pids |= {pid} - {UNLABELLED}
    report.summarize(Level.WARNING, f"boxes of {name} reach out of their image", leaving)
    report.summarize(Level.WARNING, f"boxes of {name} are in their image twice", twice)
    report.summarize(
        Level.WARNING, f"boxes of {name} show a person who has another box there", same_person
    )


def check_identities(name: str, records: list[dict[str, Any]], report: Report) -> None:
    """Report identities of a training split that appear once: re-ID learns nothing from them."""
    images = defaultdict(set)
    for record in records:
        for annotation in record["annotations"]:
            images[annotation["person_id"]].add(record["image_id"])
    images.pop(UNLABELLED, None)
    if not images:
        report.error(f"{name}: no box has an identity")
        return
    single = [pid for pid in sorted(images) if len(images[pid]) == 1]
    report.summarize(
        Level.WARNING, f"of {len(images)} identities of {name} are in one image only", single
    )


def count_people(records: list[dict[str, Any]]) -> dict[str, int]:
    """Number of images, boxes, labelled boxes and identities."""
    pids = Counter(a["person_id"] for record in records for a in record["annotations"])
    total, unlabelled = sum(pids.values()), pids.pop(UNLABELLED, 0)
    return {
        "images": len(records),
        "boxes": total,
        "labelled boxes": total - unlabelled,
        "identities": len(pids),
    }


def box_fault(box: Sequence[float], record: dict[str, Any]) -> str | None:
    """Why an XYXY box cannot be used, or None."""
    x1, y1, x2, y2 = box
    text = "[" + ", ".join(f"{v:g}" for v in box) + "]"
    if not all(map(math.isfinite, box)):
        return f"{text} holds a value that is no number"
    if x2 <= x1 or y2 <= y1:
        return f"{text} has no area"
    w, h = record.get("width", math.inf), record.get("height", math.inf)
    if x1 >= w or y1 >= h or x2 <= 0 or y2 <= 0:
        return f"{text} is outside the {w}x{h} image"
    return None


def leaves_image(box: Sequence[float], record: dict[str, Any]) -> bool:
    """Whether a part of the XYXY box is outside."""
    x1, y1, x2, y2 = box
    w, h = record.get("width", math.inf), record.get("height", math.inf)
    return x1 < 0 or y1 < 0 or x2 > w or y2 > h
