# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Who is searched where: the test protocol of a person-search set, free of any file format."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

# One of a set's galleries: a size, a name, or None for the default one.
GalleryName = int | str | None


@dataclass(frozen=True)
class Query:
    """One person to search for.

    Attributes:
        image: name of the query image; one of ``SearchProtocol.images``.
        bbox: XYXY absolute pixels in that image.
        person_id: identity in the test set's own numbering.
    """

    image: str
    bbox: tuple[float, float, float, float]
    person_id: int


@dataclass(frozen=True)
class Gallery:
    """The images in which one query is searched, and where the person truly is.

    Attributes:
        images: (G,) indices into ``SearchProtocol.images``, in protocol order and with repeated
            images kept; None means every image but ``excluded``.
        excluded: (E,) indices left out when ``images`` is None (the query's own frame, say).
        truth_images: (T,) indices of the gallery entries that hold the person. When ``images`` is
            given and lists an image twice, each listing has its own truth row.
        truth_boxes: (T, 4) float64 XYXY boxes of the person in these images.
        ignored_images: (I,) indices of gallery images in which the person is neither right nor
            wrong to find.
        ignored_boxes: (I, 4) float64 XYXY boxes of the person in these.
    """

    images: np.ndarray | None
    excluded: np.ndarray
    truth_images: np.ndarray
    truth_boxes: np.ndarray
    ignored_images: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    ignored_boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))


@dataclass(frozen=True)
class SearchProtocol:
    """Queries and their galleries over one test set.

    Attributes:
        name: data set and gallery, for messages and tables ("cuhk_sysu_test_g100").
        images: names of all test images (``image_id`` of the test records, in their order).
        cam_ids: (N,) camera of each image; all zero where the set has no cameras.
        queries: the queries; their index is the ``query_id`` of records and model outputs.
        galleries: one per query, same order.
    """

    name: str
    images: tuple[str, ...]
    cam_ids: np.ndarray
    queries: tuple[Query, ...]
    galleries: tuple[Gallery, ...]

    @cached_property
    def query_images(self) -> np.ndarray:
        """(Q,) int64 index in ``images`` of each query's own image."""
        index_of = {image: index for index, image in enumerate(self.images)}
        return np.array([index_of[query.image] for query in self.queries], dtype=np.int64)
