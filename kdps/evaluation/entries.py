# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What is ranked for each query: the images of its gallery, and the truths they stand against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kdps.data.galleries import NO_IMAGES
from kdps.data.protocol import Gallery, SearchProtocol
from kdps.errors import KdpsError
from kdps.structures.ragged import expand, find_sorted, offsets_of

# How an image counts that a gallery lists more than once, or that holds several truths.
# "first": it is ranked once, with its first truth; all truths count (SeqNet, COAT).
# "copies": it is ranked as often as it is listed, each copy with its own truth (OIM, NAE, AlignPS).
# "each": it is ranked once, and each truth may have a positive of its own.
Repeats = Literal["first", "copies", "each"]
REPEATS: tuple[Repeats, ...] = ("first", "copies", "each")


@dataclass(frozen=True)
class GalleryEntries:
    """The ranked images of all queries, laid one after the other.

    E = entries of all closed galleries, T = truths of all queries and boxes to be ignored, K =
    those that are compared. A query with an open gallery has no entries: its candidates are the
    detections of all images, in their order. "Start" is a place among the candidates of a query.

    Attributes:
        open: (Q,) bool, queries with an open gallery.
        offsets: (Q + 1,) where each query's entries start.
        images: (E,) image of each entry.
        starts: (E,) where the entry's detections start.
        lengths: (Q,) candidates of each query.
        truth_query: (T,) query of each truth, ascending; a query's truths come first, then what it
            ignores.
        truth_image: (T,) its image.
        is_ignored: (T,) bool, found there is neither right nor wrong.
        truth_start: (T,) where the detections start that it is compared with.
        compared: (K,) ascending truths that are compared with detections.
        shared: whether several truths are compared with the same detections.
    """

    open: np.ndarray
    offsets: np.ndarray
    images: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    truth_query: np.ndarray
    truth_image: np.ndarray
    is_ignored: np.ndarray
    truth_start: np.ndarray
    compared: np.ndarray
    shared: bool

    def rows(self, query: int, offsets: np.ndarray) -> np.ndarray:
        """(L,) detections that are the candidates of a query, in their order."""
        if self.open[query]:
            return np.arange(offsets[-1])
        images = self.images[self.offsets[query] : self.offsets[query + 1]]
        return expand(offsets[images], offsets[images + 1] - offsets[images])

    def rows_at(self, places: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """The detections at some places among the candidates of all queries.

        Args:
            places: (Q, K) places among the candidates of each query; -1 stands for none.
            offsets: (N + 1,) where each image's detections start.

        Returns:
            (Q, K) detections; -1 stays.
        """
        result = places.copy()
        query, column = np.nonzero((places >= 0) & ~self.open[:, None])
        place = places[query, column]
        first = offsets_of(np.where(self.open, 0, self.lengths))
        counts = offsets[self.images + 1] - offsets[self.images]
        entry = np.searchsorted(offsets_of(counts), first[query] + place, side="right") - 1
        result[query, column] = offsets[self.images[entry]] + place - self.starts[entry]
        return result


def gallery_entries(
    protocol: SearchProtocol, offsets: np.ndarray, repeats: Repeats
) -> GalleryEntries:
    """List what is ranked for each query.

    Images are ranked in protocol order, in the order of the list with "copies".

    Args:
        protocol: queries and galleries.
        offsets: (N + 1,) where each image's detections start.
        repeats: how repeated images count.

    Raises:
        KdpsError: ``repeats`` is unknown, or a truth lies in an image that is not in the query's
            gallery.
    """
    if repeats not in REPEATS:
        raise KdpsError(f"repeats: must be one of {', '.join(REPEATS)}, not {repeats!r}")
    galleries = protocol.galleries
    is_open = np.array([gallery.images is None for gallery in galleries])
    images, entry_offsets = _ranked_images(galleries, len(protocol.images), repeats)

    counts = (offsets[1:] - offsets[:-1])[images]
    ends = offsets_of(counts)
    first = ends[entry_offsets[:-1]]
    starts = ends[:-1] - np.repeat(first, np.diff(entry_offsets))
    lengths = np.where(is_open, offsets[-1], ends[entry_offsets[1:]] - first)

    parts = [part for g in galleries for part in (g.truth_images, g.ignored_images)]
    lengths_of = [len(part) for part in parts]
    truth_query = np.repeat(np.arange(len(parts)) // 2, lengths_of)
    is_ignored = np.repeat(np.arange(len(parts)) % 2 == 1, lengths_of)
    truth_image = np.concatenate([np.asarray(part, np.int64) for part in parts])
    truth_start = offsets[truth_image]
    closed = np.flatnonzero(~is_open[truth_query])
    if repeats == "copies":
        entry = _entries_of_copies(images, entry_offsets, truth_query[closed], truth_image[closed])
    else:
        size = len(protocol.images)
        listed = np.repeat(np.arange(len(galleries)), np.diff(entry_offsets)) * size + images
        wanted = truth_query[closed] * size + truth_image[closed]
        entry = find_sorted(listed, wanted)
    missing = np.append(closed[entry < 0], _excluded_truth(protocol, truth_query, truth_image))
    if len(missing):
        raise KdpsError(
            f"{protocol.name}: query {truth_query[missing[0]]} has a truth in "
            f"{protocol.images[truth_image[missing[0]]]}, which is not in its gallery"
        )
    truth_start[closed] = starts[entry]

    if repeats == "first":
        key = (truth_query * len(protocol.images) + truth_image) * 2 + is_ignored
        compared = np.sort(np.unique(key, return_index=True)[1])
    else:
        compared = np.arange(len(truth_query))
    place = np.stack([truth_query, truth_image, truth_start])[:, ~is_ignored]
    return GalleryEntries(
        open=is_open,
        offsets=entry_offsets,
        images=images,
        starts=starts,
        lengths=lengths,
        truth_query=truth_query,
        truth_image=truth_image,
        is_ignored=is_ignored,
        truth_start=truth_start,
        compared=compared,
        shared=repeats != "first" and len(np.unique(place, axis=1).T) < len(place.T),
    )


def _ranked_images(
    galleries: Sequence[Gallery], num_images: int, repeats: Repeats
) -> tuple[np.ndarray, np.ndarray]:
    """Images of all entries, query after query, and where each query's start."""
    listed = [NO_IMAGES if gallery.images is None else gallery.images for gallery in galleries]
    counts = [len(images) for images in listed]
    images = np.concatenate(listed)
    if repeats == "copies":
        return images, offsets_of(counts)
    # np.unique takes a hundred times as long for whole numbers.
    keys = np.sort(np.repeat(np.arange(len(listed)), counts) * num_images + images)
    is_new = np.ones(len(keys), dtype=bool)
    is_new[1:] = keys[1:] != keys[:-1]
    query, images = np.divmod(keys[is_new], num_images)
    return images, offsets_of(np.bincount(query, minlength=len(listed)))


def _entries_of_copies(
    images: np.ndarray, offsets: np.ndarray, truth_query: np.ndarray, truth_image: np.ndarray
) -> np.ndarray:
    """Entry of each truth, -1 if it has none.

    The second truth in an image belongs to its second listing, as far as there are so many.
    """
    result = np.full(len(truth_query), -1)
    used: dict[tuple[int, int], int] = {}
    pairs = zip(truth_query.tolist(), truth_image.tolist(), strict=True)
    for truth, (query, image) in enumerate(pairs):
        start, end = offsets[query], offsets[query + 1]
        listings = start + np.flatnonzero(images[start:end] == image)
        if len(listings):
            nth = used.get((query, image), 0)
            used[query, image] = nth + 1
            result[truth] = listings[min(nth, len(listings) - 1)]
    return result


def _excluded_truth(
    protocol: SearchProtocol, truth_query: np.ndarray, truth_image: np.ndarray
) -> np.ndarray:
    """Truths in images that an open gallery leaves out."""
    galleries = protocol.galleries
    excluded = [g.excluded if g.images is None else NO_IMAGES for g in galleries]
    size = len(protocol.images)
    query = np.repeat(np.arange(len(galleries)), [len(images) for images in excluded])
    left_out = query * size + np.concatenate(excluded)
    return np.flatnonzero(np.isin(truth_query * size + truth_image, left_out))
