# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Boxes that are embedded in place of a model's own detections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from kdps.errors import KdpsError

ANNOTATED = "annotated"


class GivenBoxes:
    """The boxes of ``TEST.PERSON_SEARCH.BOXES`` for each image."""

    def __init__(self, source: str) -> None:
        """
        Args:
            source: "annotated" for the annotated boxes of an image, or a detections file.

        Raises:
            KdpsError: there is no such file, or it is none.
        """
        self.source = source
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
            return np.array(scored, dtype=np.float32).reshape(-1, 5)
        name = str(record["image_id"])
        if name not in self._of_image:
            raise KdpsError(
                f"TEST.PERSON_SEARCH.BOXES: {self.source} has no image {name!r}; it has "
                f"{len(self._of_image)} others"
            )
        return self._of_image[name]


def _read(source: str) -> dict[str, np.ndarray]:
    # Not above: who reads images needs no evaluation.
    from kdps.evaluation.detections_file import load_detections

    try:
        detections = load_detections(source)
    except KdpsError as error:
        raise KdpsError(f"TEST.PERSON_SEARCH.BOXES: {error}") from error
    ends = np.cumsum(detections.det_count)
    return dict(zip(detections.names, np.split(detections.det, ends[:-1]), strict=True))
