# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Who is in a box, as far as a data set knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode

from kdps.data.catalog import person_search_sets
from kdps.data.records import UNLABELLED
from kdps.errors import KdpsError
from kdps.evaluation.metrics import paired_iou
from kdps.utils.visualizer import Verdict

_SAME_PERSON_IOU = 0.5


class KnownIdentities:
    """Identities of the persons in the images of a registered data set.

    Args:
        records: records of the set (``kdps.data.records``).
    """

    def __init__(self, records: Sequence[Mapping[str, Any]]) -> None:
        self._annotations = {
            Path(record["file_name"]).resolve(): record["annotations"] for record in records
        }

    @classmethod
    def of_dataset(cls, name: str) -> KnownIdentities:
        """Those of a registered set.

        Raises:
            KdpsError: no set has this name, or its files cannot be had.
        """
        known = person_search_sets()
        if name not in known:
            raise KdpsError(
                f"--dataset: no person-search set {name!r} is registered; known: "
                f"{', '.join(sorted(known))}"
            )
        return cls(DatasetCatalog.get(name))

    def person_in(self, image: str | Path, box: Sequence[float]) -> int | None:
        """The identity of the annotated person that overlaps a box most, from an IoU of 0.5.

        Args:
            image: path of the image file.
            box: XYXY absolute pixels.

        Returns:
            Its ``person_id`` (-1 for an unlabelled person); None if the box holds no annotated
            person or the image is not in the set.
        """
        annotations = self._annotations.get(Path(image).resolve(), ())
        if not annotations:
            return None
        known = np.array(
            [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
        )
        iou = paired_iou(np.broadcast_to(np.asarray(box, dtype=np.float64), known.shape), known)
        best = int(np.argmax(iou))
        return int(annotations[best]["person_id"]) if iou[best] >= _SAME_PERSON_IOU else None

    def verdict(self, image: str | Path, box: Sequence[float], person_id: int) -> Verdict:
        """Whether a box holds a given person.

        An image outside the set and an unlabelled person leave the answer open. A box without any
        annotated person is wrong.
        """
        if Path(image).resolve() not in self._annotations:
            return Verdict.UNKNOWN
        found = self.person_in(image, box)
        if found == UNLABELLED:
            return Verdict.UNKNOWN
        return Verdict.RIGHT if found == person_id else Verdict.WRONG
