# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Boxes that are embedded in place of a model's own detections."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from kdps.errors import KdpsError

ANNOTATED = "annotated"


class GivenBoxes:
    """The boxes of ``TEST.PERSON_SEARCH.BOXES`` for each image."""

    def __init__(self, source: str, shift: float = 0.0) -> None:
        """
        Args:
            source: "annotated" for the annotated boxes of an image, or a detections file.
            shift: move each box by this part of its width and height, as a bad detector would.

        Raises:
            KdpsError: there is no such file, or it is none.
        """
        self.source = source
        self.shift = shift
        self._of_image: dict[str, np.ndarray] = {}
        if source != ANNOTATED:
            self._of_image = _read(source)

    def __call__(self, record: Mapping[str, Any]) -> np.ndarray:
        """(R, 5) XYXY in pixels of the image, then the score (1 of an annotated box).

        Raises:
            KdpsError: the file does not know the image.
        """
        if self.source == ANNOTATED:
            boxes = [
                BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS)
                for a in record.get("annotations", [])
            ]
            scored = [[*box, 1.0] for box in boxes]
            found = np.array(scored, dtype=np.float32).reshape(-1, 5)
            return self._shifted(found, record)
        name = str(record["image_id"])
        if name not in self._of_image:
            raise KdpsError(
                f"TEST.PERSON_SEARCH.BOXES: {self.source} has no image {name!r}; it has "
                f"{len(self._of_image)} others"
            )
        return self._shifted(self._of_image[name], record)

    def _shifted(self, given: np.ndarray, record: Mapping[str, Any]) -> np.ndarray:
        """The boxes of an image, moved in directions that are the same for each model and shift."""
        if not self.shift:
            return given
        rng = np.random.default_rng(zlib.crc32(str(record["image_id"]).encode()))
        angles = rng.uniform(0, 2 * np.pi, len(given))
        towards = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        moves = self.shift * towards * (given[:, 2:4] - given[:, :2])
        return given + np.pad(np.tile(moves, 2), ((0, 0), (0, 1))).astype(given.dtype)


def _read(source: str) -> dict[str, np.ndarray]:
    # Not above: who reads images needs no evaluation.
    from kdps.evaluation.detections_file import load_detections

    try:
        detections = load_detections(source)
    except KdpsError as error:
        raise KdpsError(f"TEST.PERSON_SEARCH.BOXES: {error}") from error
    ends = np.cumsum(detections.det_count)
    return dict(zip(detections.names, np.split(detections.det, ends[:-1]), strict=True))
