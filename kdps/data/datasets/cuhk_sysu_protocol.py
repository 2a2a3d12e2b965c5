# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The lists of queries and galleries of CUHK-SYSU, ``TestG<size>.mat``.

The longest list has 2900 galleries of 4000 images. Its 11.6 million entries are kept as numbers in
flat arrays and are never all in memory as objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdps.data.cache import cached_arrays
from kdps.data.datasets.files import reading
from kdps.data.datasets.mat_elements import load_matrix, split_struct
from kdps.data.datasets.mat_stream import open_structs
from kdps.data.datasets.matlab import as_numbers, as_text, unwrap
from kdps.data.galleries import NO_IMAGES
from kdps.data.protocol import Gallery, Query, SearchProtocol
from kdps.errors import KdpsError

Box = tuple[int, ...]  # x, y, width, height
Place = tuple[str, Box]  # name of an image and a box in it

# No coordinate reaches it, and below it all whole numbers fit into the types used here.
_LARGEST = 2**31
# Names the content of the cache; the number changes with it.
_CACHE_KIND = "cuhk-sysu-1"
# Our choice: below TestG50.mat (1 MB, read in a second) is what is read at once anyway.
_CACHED_FROM_BYTES = 1 << 19
# How many elements known to be empty or sound are kept at most.
_MOST_KNOWN = 1 << 16


@dataclass(frozen=True)
class GalleryLists:
    """What a list holds, without regard to the pool of images.

    Q = queries, N = different images, E = entries of all galleries, T = entries with the person.

    Attributes:
        names: (N,) str names of the images.
        query_images: (Q,) int32 indices into ``names``.
        query_names: (Q,) str names of the identities ("p11203").
        query_boxes: (Q, 4) float64 XYXY.
        entries: (E,) int32 indices into ``names``, gallery after gallery.
        gallery_sizes: (Q,) int64.
        truths: (T,) int64 indices into ``entries``, ascending.
        truth_boxes: (T, 4) float64 XYXY.
    """

    names: np.ndarray
    query_images: np.ndarray
    query_names: np.ndarray
    query_boxes: np.ndarray
    entries: np.ndarray
    gallery_sizes: np.ndarray
    truths: np.ndarray
    truth_boxes: np.ndarray


def read_protocol(
    path: Path, pool: Sequence[str], name: str, variable: str | None = None
) -> SearchProtocol:
    """The protocol of one list.

    Args:
        path: the list.
        pool: names of the test images.
        name: the protocol's name.
        variable: what the list is called in the file; the file's name by default.

    Returns:
        A protocol whose galleries are parts of one int32 array.

    Raises:
        KdpsError: the file cannot be read, is damaged, lists no queries or names an image outside
            the pool.
    """
    lists = read_gallery_lists(path, variable or path.stem)
    index_of = {name: index for index, name in enumerate(pool)}
    index_of_name = [index_of.get(name, -1) for name in lists.names.tolist()]
    images = np.array(index_of_name, dtype=np.int32)[lists.entries]
    ends = np.cumsum(lists.gallery_sizes)
    queries, galleries = [], []
    for number, (start, end) in enumerate(zip(ends - lists.gallery_sizes, ends, strict=True)):
        where = f"{path}, query {number}"
        queries.append(_make_query(lists, number, where))
        outside = np.flatnonzero(images[start:end] < 0)
        if len(outside):
            image = str(lists.names[lists.entries[start + outside[0]]])
            raise KdpsError(f"{where}: gallery image {image!r} is not in pool.mat")
        if queries[-1].image not in index_of:
            raise KdpsError(f"{where}: query image {queries[-1].image!r} is not in pool.mat")
        truths = slice(*np.searchsorted(lists.truths, (start, end)))
        galleries.append(
            Gallery(
                images=images[start:end],
                excluded=NO_IMAGES,
                truth_images=images[lists.truths[truths]].astype(np.int64),
                truth_boxes=lists.truth_boxes[truths],
            )
        )
    return SearchProtocol(
        name=name,
        images=tuple(pool),
        cam_ids=np.zeros(len(pool), dtype=np.int64),
        queries=tuple(queries),
        galleries=tuple(galleries),
    )


def read_gallery_lists(path: Path, variable: str) -> GalleryLists:
    """The content of one list; of a long one from the cache, if it was read before.

    Raises:
        KdpsError: the file cannot be read, is damaged or lists no queries.
    """
    with reading(path):
        size = path.stat().st_size
    if size < _CACHED_FROM_BYTES:
        return _read_lists(path, variable)
    kind = f"{_CACHE_KIND}-{variable}"
    return GalleryLists(**cached_arrays(kind, path, lambda: vars(_read_lists(path, variable))))


def query_identities(protocol: SearchProtocol) -> Iterator[tuple[int, list[Place]]]:
    """Identity of each query and where it is, the query's own place first."""
    for query, gallery in zip(protocol.queries, protocol.galleries, strict=True):
        truths = zip(gallery.truth_images, gallery.truth_boxes, strict=True)
        places = [(query.image, _xyxy_to_xywh(query.bbox))]
        places += [(protocol.images[i], _xyxy_to_xywh(tuple(box))) for i, box in truths]
        yield query.person_id, places


def as_structs(value: Any, fields: tuple[str, ...], where: str) -> np.ndarray:
    """The MATLAB struct array in ``value``, flat.

    Args:
        value: as ``scipy.io.loadmat`` gives it.
        fields: that must be there.
        where: names the value in an error.

    Raises:
        KdpsError: a field is missing.
    """
    value = np.asarray(unwrap(value))
    missing = [name for name in fields if name not in (value.dtype.names or ())]
    if missing and value.size:
        raise KdpsError(f"{where} has no field {missing[0]!r}")
    return value.reshape(-1)


def as_struct(value: Any, fields: tuple[str, ...], where: str) -> Any:
    """The one MATLAB struct in ``value``.

    Raises:
        KdpsError: a field is missing, or it is another number of structs.
    """
    flat = as_structs(value, fields, where)
    if len(flat) != 1:
        raise KdpsError(f"{where} should be one struct, not {len(flat)}")
    return flat[0]


def as_box(value: Any, where: str) -> Box:
    """The box in an ``idlocate``.

    Raises:
        KdpsError: it does not hold four numbers.
    """
    raw = as_numbers(value, f"{where}: idlocate").reshape(-1)
    if len(raw) != 4:
        raise KdpsError(f"{where}: idlocate should hold 4 numbers, it holds {len(raw)}")
    if not (np.abs(raw) < _LARGEST).all():
        raise KdpsError(f"{where}: idlocate holds a value that is no number: {raw.tolist()}")
    return tuple(raw.astype(np.int64).tolist())


def xywh_to_xyxy(box: Box) -> tuple[float, float, float, float]:
    """A box by its corners."""
    x, y, w, h = map(float, box)
    return x, y, x + w, y + h


def _xyxy_to_xywh(box: tuple[float, ...]) -> Box:
    x1, y1, x2, y2 = box
    return int(x1), int(y1), int(x2 - x1), int(y2 - y1)


def _make_query(lists: GalleryLists, number: int, where: str) -> Query:
    name = str(lists.query_names[number])
    identity = re.fullmatch(r"p(\d+)", name)
    if identity is None:
        raise KdpsError(f"{where}: idname {name!r} is not 'p' and a number")
    image = str(lists.names[lists.query_images[number]])
    return Query(image, tuple(lists.query_boxes[number].tolist()), int(identity[1]))


def _read_lists(path: Path, variable: str) -> GalleryLists:
    builder = _ListsBuilder()
    with open_structs(path, variable) as rows:
        if not rows.length:
            raise KdpsError(f"{path} lists no queries")
        for field in ("Query", "Gallery"):
            if field not in rows.fields:
                raise KdpsError(f"{path}, {variable} has no field {field!r}")
        for number, row in enumerate(rows):
            builder.add(row, f"{path}, query {number}")
    return builder.build()


class _ListsBuilder:
    """Collects the queries of a list.

    Of an element that comes again, byte for byte, the value is known. Nearly all entries consist of
    a name that was there before and of an empty box.
    """

    def __init__(self) -> None:
        self._index_of_name: dict[str, int] = {}
        self._index_of_element = _Memo(lambda element: self._index_of(load_matrix(element)))
        self._empty: set[bytes] = set()
        self._sound: set[bytes] = set()
        self._queries: list[tuple[int, str, tuple[float, ...]]] = []
        self._galleries: list[np.ndarray] = []
        self._num_entries = 0
        self._truths: list[int] = []
        self._truth_boxes: list[tuple[float, ...]] = []

    def add(self, row: dict[str, bytes], where: str) -> None:
        """Add a query and its gallery, given the elements of a struct by field.

        Raises:
            MatFileError: an element is damaged.
            KdpsError: a field is missing or a box is none.
        """
        query = as_struct(load_matrix(row["Query"]), ("imname", "idlocate", "idname"), where)
        self._queries.append(
            (
                self._index_of(query["imname"]),
                as_text(query["idname"]),
                xywh_to_xyxy(as_box(query["idlocate"], where)),
            )
        )
        images, boxes = self._read_gallery(row["Gallery"], where)
        for entry, box in boxes:
            self._truths.append(self._num_entries + entry)
            self._truth_boxes.append(xywh_to_xyxy(as_box(box, where)))
        self._galleries.append(images)
        self._num_entries += len(images)
        self._check([row[field] for field in row.keys() - {"Query", "Gallery"}])

    def build(self) -> GalleryLists:
        """All that was added."""
        images, names, boxes = zip(*self._queries, strict=True)
        return GalleryLists(
            names=np.array(list(self._index_of_name), dtype=np.str_),
            query_images=np.array(images, dtype=np.int32),
            query_names=np.array(names, dtype=np.str_),
            query_boxes=np.array(boxes, dtype=np.float64),
            entries=np.concatenate(self._galleries),
            gallery_sizes=np.array([len(gallery) for gallery in self._galleries], dtype=np.int64),
            truths=np.array(self._truths, dtype=np.int64),
            truth_boxes=np.array(self._truth_boxes, dtype=np.float64).reshape(-1, 4),
        )

    def _read_gallery(
        self, element: bytes, where: str
    ) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
        """(G,) int32 indices of the names, and the boxes with the places of their entries."""
        parts = split_struct(element)
        if parts is None or not {"imname", "idlocate"}.issubset(parts.fields):
            entries = as_structs(load_matrix(element), ("imname", "idlocate"), where)
            images = np.array([self._index_of(e["imname"]) for e in entries], dtype=np.int32)
            boxes = [(place, entry["idlocate"]) for place, entry in enumerate(entries)]
            return images, [(place, box) for place, box in boxes if box.size]
        names = map(self._index_of_element.__getitem__, parts.column("imname"))
        images = np.fromiter(names, dtype=np.int32, count=parts.length)
        for field in parts.fields:
            if field not in ("imname", "idlocate"):
                self._check(parts.column(field))
        return images, self._read_boxes(parts.column("idlocate"))

    def _read_boxes(self, elements: list[bytes]) -> list[tuple[int, np.ndarray]]:
        boxes = []
        for place, element in enumerate(elements):
            if element in self._empty:
                continue
            box = load_matrix(element)
            if box.size:
                boxes.append((place, box))
            elif len(self._empty) < _MOST_KNOWN:
                self._empty.add(element)
        return boxes

    def _check(self, elements: list[bytes]) -> None:
        """Find damage in values that are not used, as a reader of the whole file would."""
        for element in set(elements) - self._sound:
            load_matrix(element)
            if len(self._sound) < _MOST_KNOWN:
                self._sound.add(element)

    def _index_of(self, name: Any) -> int:
        return self._index_of_name.setdefault(as_text(name), len(self._index_of_name))


class _Memo(dict):
    """What ``compute`` makes of a key, computed once."""

    def __init__(self, compute: Callable[[bytes], int]) -> None:
        super().__init__()
        self._compute = compute

    def __missing__(self, key: bytes) -> int:
        value = self[key] = self._compute(key)
        return value
