# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Predictions of a long run, kept in parts so that an interruption does not lose them."""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdps.checkpoint.files import atomic_write
from kdps.evaluation.assemble import ImagePrediction
from kdps.structures.ragged import offsets_of
from kdps.utils.output import make_folder

logger = logging.getLogger(__name__)

# Arrays of a prediction that have a row per person, and the name of their counts in a part.
_COUNTED = {
    "det": "det_count",
    "emb": "det_count",
    "query_ids": "query_count",
    "query_emb": "query_count",
    "annotated_emb": "annotated_count",
}


class PredictionParts:
    """A folder of finished parts.

    Attributes:
        folder: where they lie; made when the first part is added.
    """

    def __init__(
        self, folder: Path, origin: Mapping[str, Any], states: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            folder: of the parts.
            origin: what decides the predictions of an image, as JSON values: model, config,
                weights. Parts of another origin are not taken.
            states: for each image, what its file is like now, where files may be replaced. The
                prediction of an image that was like something else is not taken.
        """
        self.folder = folder
        self._origin = json.dumps(origin, sort_keys=True)
        self._states = states or {}

    def load(self) -> dict[str, ImagePrediction]:
        """The predictions of all parts of this origin, by image; those of others are removed."""
        found: dict[str, ImagePrediction] = {}
        removed = 0
        for path in sorted(self.folder.glob("*.npz")):
            predictions = self._read(path)
            if predictions is None:
                path.unlink()
                removed += 1
                continue
            found.update((prediction.image_id, prediction) for prediction in predictions)
        if removed:
            what = "were damaged, or of other weights, settings or images, and are removed"
            logger.warning("%s: %d parts %s", self.folder, removed, what)
        return found

    def add(self, predictions: Sequence[ImagePrediction]) -> None:
        """Write a further part, whole or not at all.

        Raises:
            KdpsError: it cannot be written.
        """
        if not predictions:
            return
        make_folder(self.folder)
        number = 1 + max((int(path.stem) for path in self.folder.glob("*.npz")), default=-1)
        arrays: dict[str, Any] = {
            "origin": np.array(self._origin),
            "image_id": np.array([p.image_id for p in predictions], dtype=np.str_),
            "state": np.array([self._state(p.image_id) for p in predictions], dtype=np.str_),
            "has_queries": np.array([p.has_queries for p in predictions]),
            "has_annotated": np.array([p.annotated_emb is not None for p in predictions]),
        }
        for name, count in _COUNTED.items():
            parts = [_rows(p, name) for p in predictions]
            arrays[name] = np.concatenate(parts)
            arrays[count] = np.array([len(part) for part in parts], dtype=np.int64)
        with atomic_write(self.folder / f"{number:06d}.npz") as file:
            np.savez(file, **arrays)

    def remove(self) -> None:
        """Remove the folder; the parts have been put together."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, path: Path) -> list[ImagePrediction] | None:
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, zipfile.BadZipFile):
            return None
        if str(arrays.get("origin")) != self._origin:
            return None
        rows = {}
        for name, count in _COUNTED.items():
            ends = offsets_of(arrays[count])[1:-1]
            rows[name] = np.split(arrays[name], ends)
        return [
            ImagePrediction(
                image_id=str(image),
                det=rows["det"][i],
                emb=rows["emb"][i],
                query_ids=rows["query_ids"][i],
                query_emb=rows["query_emb"][i],
                annotated_emb=rows["annotated_emb"][i] if arrays["has_annotated"][i] else None,
                has_queries=bool(arrays["has_queries"][i]),
            )
            for i, image in enumerate(arrays["image_id"])
            if arrays["state"][i] == self._state(str(image))
        ]

    def _state(self, image: str) -> str:
        return self._states.get(image, "")


def _rows(prediction: ImagePrediction, name: str) -> np.ndarray:
    value = getattr(prediction, name)
    return prediction.emb[:0] if value is None else value
