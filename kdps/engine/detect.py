# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A model over many images, in batches and parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from kdps.data.build import records_loader
from kdps.data.dataset_mapper import PersonSearchDatasetMapper
from kdps.evaluation.assemble import ImagePrediction
from kdps.evaluation.prediction_parts import PredictionParts

# Images of a part; as many are lost when the process is killed.
_IMAGES_PER_PART = 200


def detect_records(
    cfg: CfgNode,
    model: Callable[[list[dict[str, Any]]], list[dict[str, Instances]]],
    records: Sequence[dict[str, Any]],
    parts: PredictionParts,
) -> list[ImagePrediction]:
    """Detect and embed the people of all records, in batches of TEST.IMS_PER_BATCH.

    What is in ``parts`` already is not computed again, and what is computed goes there, whatever
    ends the run.

    Args:
        cfg: of the input and the batches.
        model: with weights, in evaluation mode, or one that was exported.
        records: of a test set or of bare images.
        parts: of an earlier run, or empty.

    Returns:
        A prediction for each record, in their order.

    Raises:
        KdpsError: an image cannot be read, or a part cannot be written.
    """
    done = parts.load()
    left = [record for record in records if record["image_id"] not in done]
    fresh: list[ImagePrediction] = []
    bar = tqdm(
        total=len(records),
        initial=len(records) - len(left),
        desc="detecting",
        unit="image",
        dynamic_ncols=True,
    )
    try:
        with logging_redirect_tqdm(), bar, torch.inference_mode():
            batches = (
                records_loader(cfg, left, PersonSearchDatasetMapper(cfg, False)) if left else ()
            )
            for inputs in batches:
                for record, output in zip(inputs, model(inputs), strict=True):
                    fresh.append(ImagePrediction.from_output(record["image_id"], output))
                    done[record["image_id"]] = fresh[-1]
                bar.update(len(inputs))
                if len(fresh) >= _IMAGES_PER_PART:
                    parts.add(fresh)
                    fresh = []
    finally:
        parts.add(fresh)
    return [done[record["image_id"]] for record in records]
