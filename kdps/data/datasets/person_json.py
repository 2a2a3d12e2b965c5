# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""COCO-style JSON with a ``person_id`` per annotation: the way in for one's own data.

Beside COCO's ``images`` (``id``, ``file_name``, ``height``, ``width``) and ``annotations``
(``image_id``, ``bbox`` as x, y, width, height)::

    annotations[].person_id   identity, 0 upwards; missing, null or -1 for an unlabelled person
    images[].cam_id           camera; 0 if missing
    queries                   optional list of {"image_id", "bbox", "person_id"}

Where the file has ``categories``, only annotations of "person" count, or of the only category,
whatever its name. Without ``queries``, each person's first box in each camera is a query if the
person is in another image as well.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from kdps.data.datasets.files import read_text, require_split, require_unique
from kdps.data.datasets.images import fill_image_sizes
from kdps.data.galleries import open_gallery_protocol
from kdps.data.protocol import Query, SearchProtocol
from kdps.data.records import UNLABELLED, attach_queries, make_annotation, renumber_identities
from kdps.errors import KdpsError, one_line


def load_person_json(
    json_file: str | Path, image_root: str | Path, split: str, *, image_sizes: bool = True
) -> list[dict[str, Any]]:
    """Records of a COCO-style file; crowd regions and categories other than person are left out.

    Args:
        json_file: the annotation file.
        image_root: folder that ``file_name`` starts from.
        split: "train" (identities renumbered from 0) or "test" (as in the file, with the queries
            attached).
        image_sizes: read the size of each image from its header, which must be the one in the
            file where that has one; otherwise the file's numbers stand.

    Raises:
        KdpsError: the file is missing or damaged, or an entry is at fault.
    """
    require_split(split)
    data = _read_json(json_file)
    records = _make_records(data, Path(json_file), Path(image_root))
    if split == "train":
        renumber_identities(records)
    else:
        attach_queries(records, _make_protocol(data, records, Path(json_file), "json_test"))
    if image_sizes:
        fill_image_sizes(records, json_file)
    return records


def load_person_json_protocol(json_file: str | Path, *, name: str = "json_test") -> SearchProtocol:
    """Each query of the file against all other images; no image is needed.

    Raises:
        KdpsError: the file is missing or damaged, or an entry is at fault.
    """
    data = _read_json(json_file)
    path = Path(json_file)
    return _make_protocol(data, _make_records(data, path, path.parent), path, name)


def _read_json(path: str | Path) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path))
    except ValueError as error:
        raise KdpsError(f"{path} is truncated or no JSON ({one_line(error)})") from error
    for key in ("images", "annotations"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise KdpsError(f"{path} has no list {key!r}")
    for key in ("categories", "queries"):
        if not isinstance(data.get(key), list | None):
            raise KdpsError(f"{path}: {key} should be a list")
    return data


def _make_records(data: dict[str, Any], path: Path, image_root: Path) -> list[dict[str, Any]]:
    by_id: dict[Any, dict[str, Any]] = {}
    for number, image in enumerate(data["images"]):
        where = f"{path}, images[{number}]"
        key, name = _key(image, "id", where), str(_field(image, "file_name", where))
        if key in by_id:
            raise KdpsError(f"{where}: id {key!r} stands for another image already")
        record = {
            "file_name": str(image_root / name),
            "image_id": name,
            "cam_id": _integer(image.get("cam_id", 0), "cam_id", where),
            "annotations": [],
        }
        for side in ("height", "width"):
            if image.get(side) is not None:
                record[side] = _integer(image[side], side, where)
        by_id[key] = record
    records = list(by_id.values())
    require_unique([record["image_id"] for record in records], path)
    people = _person_categories(data, path)
    for number, annotation in enumerate(data["annotations"]):
        where = f"{path}, annotations[{number}]"
        key = _key(annotation, "image_id", where)
        if key not in by_id:
            raise KdpsError(f"{where}: image_id {key!r} is not among the images")
        if annotation.get("iscrowd"):
            continue
        if people and _key(annotation, "category_id", where) not in people:
            continue
        pid = annotation.get("person_id")
        pid = UNLABELLED if pid is None else _integer(pid, "person_id", where)
        if pid < UNLABELLED:
            raise KdpsError(f"{where}: unknown identity {pid} (known: -1 upwards)")
        by_id[key]["annotations"].append(make_annotation(_box(annotation, where), pid))
    return records


def _make_protocol(
    data: dict[str, Any], records: list[dict[str, Any]], path: Path, name: str
) -> SearchProtocol:
    if data.get("queries") is None:
        queries = _choose_queries(records)
    else:
        names = {image["id"]: str(image["file_name"]) for image in data["images"]}
        queries = []
        for number, query in enumerate(data["queries"]):
            where = f"{path}, queries[{number}]"
            key = _key(query, "image_id", where)
            if key not in names:
                raise KdpsError(f"{where}: image_id {key!r} is not among the images")
            pid = _integer(_field(query, "person_id", where), "person_id", where)
            queries.append(Query(names[key], _box(query, where), pid))
    if not queries:
        raise KdpsError(f"{path} has no queries and no person who is in two images")
    return open_gallery_protocol(name, records, queries)


def _choose_queries(records: list[dict[str, Any]]) -> list[Query]:
    first: dict[tuple[int, int], Query] = {}
    images: dict[int, set[str]] = {}
    for record in records:
        for annotation in record["annotations"]:
            pid = annotation["person_id"]
            if pid != UNLABELLED:
                query = Query(record["image_id"], tuple(annotation["bbox"]), pid)
                first.setdefault((pid, record["cam_id"]), query)
                images.setdefault(pid, set()).add(record["image_id"])
    return [first[key] for key in sorted(first) if len(images[key[0]]) > 1]


def _person_categories(data: dict[str, Any], path: Path) -> set[int | float | str]:
    """Ids of the categories that are people; none where the file has no categories."""
    names = {}
    for number, category in enumerate(data.get("categories") or ()):
        where = f"{path}, categories[{number}]"
        names[_key(category, "id", where)] = str(_field(category, "name", where))
    people = set(names) if len(names) == 1 else {k for k in names if names[k] == "person"}
    if names and not people:
        found = ", ".join(names.values())
        raise KdpsError(f"{path}: none of several categories is 'person'; they are {found}")
    return people


def _field(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, dict) or entry.get(key) is None:
        raise KdpsError(f"{where} has no {key!r}")
    return entry[key]


def _key(entry: Any, key: str, where: str) -> int | float | str:
    value = _field(entry, key, where)
    if not isinstance(value, int | float | str):
        raise KdpsError(f"{where}: {key} should be a number or a text, it is {value!r}")
    return value


def _integer(value: Any, key: str, where: str) -> int:
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_whole:
        raise KdpsError(f"{where}: {key} should be a whole number, it is {value!r}")
    return int(value)


def _box(entry: dict[str, Any], where: str) -> tuple[float, float, float, float]:
    box = _field(entry, "bbox", where)
    try:
        x, y, w, h = (float(value) for value in box)
    except (TypeError, ValueError):
        raise KdpsError(f"{where}: bbox should hold x, y, width, height, it is {box!r}") from None
    if not all(map(math.isfinite, (x, y, w, h))):
        raise KdpsError(f"{where}: bbox holds a value that is no number: {box!r}")
    return x, y, x + w, y + h
