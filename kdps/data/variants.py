# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Other protocols on the same queries: cross-camera, multi-view, the full set, strict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kdps.data.galleries import NO_IMAGES
from kdps.data.protocol import Gallery, SearchProtocol
from kdps.errors import KdpsError


def cross_camera(protocol: SearchProtocol) -> SearchProtocol:
    """Each query is searched in the images of the other cameras only.

    In papers also "multi-view gallery". A query whose person is seen by one camera only is left
    without a truth.

    Raises:
        KdpsError: all images are of one camera.
    """
    return replace(
        protocol,
        name=f"{protocol.name}_cross_camera",
        galleries=tuple(
            without_images(gallery, same)
            for gallery, same in zip(protocol.galleries, _same_camera(protocol), strict=True)
        ),
    )


def multi_view(protocol: SearchProtocol) -> SearchProtocol:
    """The person counts in other cameras only, but all images stay in the gallery.

    Where the query's own camera sees the person, a detection is neither right nor wrong; other
    people there still distract. The rule of re-ID sets such as Market-1501 (Zheng et al., "Scalable
    Person Re-identification: A Benchmark", ICCV 2015).

    Raises:
        KdpsError: all images are of one camera.
    """
    galleries = []
    for gallery, same in zip(protocol.galleries, _same_camera(protocol), strict=True):
        here = np.isin(gallery.truth_images, same)
        galleries.append(
            replace(
                gallery,
                truth_images=gallery.truth_images[~here],
                truth_boxes=gallery.truth_boxes[~here],
                ignored_images=np.append(gallery.ignored_images, gallery.truth_images[here]),
                ignored_boxes=np.concatenate([gallery.ignored_boxes, gallery.truth_boxes[here]]),
            )
        )
    return replace(protocol, name=f"{protocol.name}_multi_view", galleries=tuple(galleries))


def full_set(protocol: SearchProtocol, name: str) -> SearchProtocol:
    """Each query is searched in its own list and in all other images of the set.

    As NAE computes CUHK-SYSU's full set from the lists of 50 images: what the list names stays as
    it is, repeated images and the query's own included; of the other images only the query's own
    is left out.

    Args:
        protocol: with a list of images per query.
        name: of the new protocol.
    """
    galleries = []
    for image, gallery in zip(protocol.query_images, protocol.galleries, strict=True):
        listed = np.unique(gallery.images)
        own = np.setdiff1d([image], listed)
        if len(listed) == len(gallery.images):
            # An open gallery takes no memory per image.
            galleries.append(replace(gallery, images=None, excluded=own))
        else:
            rest = np.setdiff1d(np.arange(len(protocol.images)), np.append(listed, own))
            images = np.concatenate([gallery.images, rest])
            galleries.append(replace(gallery, images=images))
    return replace(protocol, name=name, galleries=tuple(galleries))


def strict(protocol: SearchProtocol, records: Sequence[Mapping[str, Any]]) -> SearchProtocol:
    """Each image once, each truth once, and never the query's own image.

    To be scored with ``repeats="each"``, so that a person who is annotated twice in an image has to
    be found twice.

    Args:
        protocol: any.
        records: the test records; from them come the further boxes of a person in an image of an
            open gallery, of which the usual protocols keep the first.
    """
    places: dict[int, list[tuple[int, tuple[float, ...]]]] = defaultdict(list)
    index_of = {image: index for index, image in enumerate(protocol.images)}
    for record in records:
        for annotation in record["annotations"]:
            place = index_of[record["image_id"]], tuple(annotation["bbox"])
            places[annotation["person_id"]].append(place)
    galleries = []
    searched = zip(protocol.queries, protocol.query_images, protocol.galleries, strict=True)
    for query, own, gallery in searched:
        boxes = map(tuple, gallery.truth_boxes.tolist())
        truths = list(zip(gallery.truth_images.tolist(), boxes, strict=True))
        if gallery.images is None:
            known = {image for image, _ in truths}
            truths += [place for place in places[query.person_id] if place[0] in known]
        else:
            gallery = replace(gallery, images=np.unique(gallery.images))
        truths = list(dict.fromkeys(truths))
        whole = replace(
            gallery,
            truth_images=np.array([image for image, _ in truths], dtype=np.int64),
            truth_boxes=np.array([box for _, box in truths], dtype=np.float64).reshape(-1, 4),
        )
        galleries.append(without_images(whole, own[None]))
    return replace(protocol, name=f"{protocol.name}_strict", galleries=tuple(galleries))


def restrict_to_cameras(protocol: SearchProtocol, cameras: Collection[int]) -> SearchProtocol:
    """The same queries, searched in the images of some cameras only.

    Args:
        protocol: with lists of gallery images or with open galleries; both become lists.
        cameras: ids that remain.

    Returns:
        A protocol over the same images. Queries may be left without a truth.

    Raises:
        KdpsError: there is no image of one of the cameras.
    """
    known = np.unique(protocol.cam_ids).tolist()
    unknown = [camera for camera in cameras if camera not in known]
    if unknown:
        raise KdpsError(
            f"{protocol.name}: no image is of camera {unknown[0]}; there are "
            f"{', '.join(map(str, known))}"
        )
    inside = np.isin(protocol.cam_ids, list(cameras))
    frames = np.flatnonzero(inside)
    galleries = []
    for gallery in protocol.galleries:
        if gallery.images is None:
            images = frames[~np.isin(frames, gallery.excluded)]
        else:
            images = gallery.images[inside[gallery.images]]
        part = _keep_truths(gallery, inside[gallery.truth_images], inside[gallery.ignored_images])
        galleries.append(replace(part, images=images, excluded=NO_IMAGES))
    suffix = "_".join(f"c{camera}" for camera in sorted(cameras))
    return replace(protocol, name=f"{protocol.name}_{suffix}", galleries=tuple(galleries))


def without_images(gallery: Gallery, images: np.ndarray) -> Gallery:
    """A gallery without some images and the truths in them.

    Args:
        gallery: open or a list.
        images: (E,) indices of the images to leave out.
    """
    part = _keep_truths(
        gallery, ~np.isin(gallery.truth_images, images), ~np.isin(gallery.ignored_images, images)
    )
    if gallery.images is None:
        return replace(part, excluded=np.union1d(gallery.excluded, images))
    return replace(part, images=gallery.images[~np.isin(gallery.images, images)])


def _keep_truths(gallery: Gallery, truths: np.ndarray, ignored: np.ndarray) -> Gallery:
    """Only some of the truths and of what is ignored, each marked by a row of bool."""
    return replace(
        gallery,
        truth_images=gallery.truth_images[truths],
        truth_boxes=gallery.truth_boxes[truths],
        ignored_images=gallery.ignored_images[ignored],
        ignored_boxes=gallery.ignored_boxes[ignored],
    )


def _same_camera(protocol: SearchProtocol) -> list[np.ndarray]:
    """Per query the indices of the images of its own camera."""
    cameras = np.unique(protocol.cam_ids)
    if len(cameras) < 2:
        raise KdpsError(f"{protocol.name}: all images are of one camera, there is no other one")
    of_camera = {int(camera): np.flatnonzero(protocol.cam_ids == camera) for camera in cameras}
    return [of_camera[camera] for camera in protocol.cam_ids[protocol.query_images].tolist()]
