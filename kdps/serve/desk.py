# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What can be done on the page, without the page."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from kdps.errors import KdpsError
from kdps.footage.moments import Clock, parse_moment
from kdps.footage.sources import Source
from kdps.footage.video import VideoReader
from kdps.index.selection import Selection
from kdps.search.gallery import Hit
from kdps.search.images import read_bgr
from kdps.search.searcher import Person, PersonSearcher
from kdps.serve.uploads import decode_upload


@dataclass(frozen=True)
class Scene:
    """An image to choose a person from.

    Attributes:
        title: what it is called on the page.
        image: (H, W, 3) uint8 BGR.
        persons: those detected, from left to right.
        source: the index's name for the image, which a search leaves out; empty where it may find
            the same file (a video) or cannot (an upload).
    """

    title: str
    image: np.ndarray
    persons: tuple[Person, ...]
    source: str = ""


@dataclass(frozen=True)
class Wanted:
    """Who is searched for.

    Attributes:
        embedding: (D,) of unit length.
        source: see ``Scene``.
    """

    embedding: Tensor
    source: str


class SearchDesk:
    """Takes what a visitor says, in numbers and texts, to a searcher of an index.

    Footage is named by its number in ``labels``; nothing that a visitor says is a path.

    Attributes:
        cameras: names of all cameras, sorted.
        labels: what each image or video of the index is called, sorted by path.
    """

    def __init__(self, searcher: PersonSearcher, max_bytes: int) -> None:
        """
        Args:
            searcher: of an index; see ``kdps.search.indexed.open_searcher``.
            max_bytes: the most bytes of an uploaded image.
        """
        self.max_bytes = max_bytes
        self._searcher = searcher
        records = searcher.gallery.index.sources()
        self._sources = [Source(Path(record.source), record.camera) for record in records]
        self.cameras = sorted({source.camera for source in self._sources})
        self.labels = _labels(self._sources)

    def __len__(self) -> int:
        """Number of sightings in the index."""
        return len(self._searcher.gallery)

    def footage_of(self, camera: str | None) -> list[int]:
        """Numbers of the images and videos of a camera, or of all."""
        return [i for i, source in enumerate(self._sources) if camera in (None, source.camera)]

    def open_footage(self, number: object, at: str) -> Scene:
        """A scene of the index.

        Args:
            number: of the image or video.
            at: of a video, the time since its beginning (``0:01:30``); empty is its beginning.

        Raises:
            KdpsError: there is no such number or time, or the footage cannot be read.
        """
        row = _whole(number, len(self._sources), "footage")
        source, label = self._sources[row], self.labels[row]
        if not source.is_video:
            return self._scene(label, read_bgr(source.path), source.name)
        moment = parse_moment(at.strip() or "0", "time in the video")
        if moment.clock is not Clock.RECORDING:
            raise KdpsError("time in the video: it counts from the beginning (0:01:30)")
        frame = VideoReader(source.path).frame_after(moment.microseconds)
        return self._scene(f"{label} at {moment}", frame.image, "")

    def open_upload(self, data: object) -> Scene:
        """A scene that the visitor sent; see ``kdps.serve.uploads.decode_upload``."""
        return self._scene("your image", decode_upload(data, self.max_bytes), "")

    def choose_person(self, scene: Scene, number: object) -> Wanted:
        """The detected person of a number (from 0).

        Raises:
            KdpsError: there is none.
        """
        person = scene.persons[_whole(number, len(scene.persons), "person")]
        return Wanted(person.embedding, scene.source)

    def choose_box(self, scene: Scene, shares: object) -> Wanted:
        """The person in a box.

        Args:
            scene: where.
            shares: X0, Y0, X1, Y1 as shares of the scene's width and height.

        Raises:
            KdpsError: that is no box within the scene.
        """
        if not (
            isinstance(shares, list)
            and len(shares) == 4
            and all(isinstance(v, int | float) and math.isfinite(v) for v in shares)
        ):
            raise KdpsError("box: it has no four numbers")
        height, width = scene.image.shape[:2]
        box = np.clip(shares, 0, 1) * [width, height, width, height]
        if box[2] - box[0] < 2 or box[3] - box[1] < 2:
            raise KdpsError("box: it is too small; draw it around the whole person")
        return Wanted(self._searcher.embed(scene.image, box), scene.source)

    def find(
        self, wanted: Wanted, cameras: Sequence[str], start: str, end: str, top_k: int
    ) -> list[Hit]:
        """The hits on some cameras (none are all) between two times (empty is any).

        Raises:
            KdpsError: a time cannot be read.
        """
        bounds = [
            parse_moment(text, field) if text.strip() else None
            for text, field in ((start, "from"), (end, "to"))
        ]
        selection = Selection(tuple(cameras), *bounds, (wanted.source,) if wanted.source else ())
        return self._searcher.find(wanted.embedding, top_k, selection=selection)

    def _scene(self, title: str, image: np.ndarray, source: str) -> Scene:
        return Scene(title, image, tuple(self._searcher.persons(image)), source)


def hit_of(hits: Sequence[Hit], number: object) -> Hit:
    """The hit of a number (from 0).

    Raises:
        KdpsError: there is none.
    """
    return hits[_whole(number, len(hits), "hit")]


def _whole(number: object, count: int, field: str) -> int:
    # A bool is an int to Python.
    if type(number) is not int or not 0 <= number < count:
        raise KdpsError(f"{field}: choose one of those that are shown")
    return number


def _labels(sources: Sequence[Source]) -> list[str]:
    if not sources:
        return []
    shared = os.path.commonpath([source.path.parent for source in sources])
    return [source.path.relative_to(shared).as_posix() for source in sources]
