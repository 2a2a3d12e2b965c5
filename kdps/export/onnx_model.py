# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""An ONNX file in the place of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import detector_postprocess
from detectron2.structures import Boxes, Instances

from kdps.errors import KdpsError
from kdps.export.fixed_settings import ARCHITECTURE, check_fixed_settings
from kdps.export.session import WEIGHTS_ENTRY, open_session
from kdps.export.traceable import INPUT, OUTPUTS

SUFFIX = ".onnx"


def check_precision(cfg: CfgNode) -> None:
    """Raise a KdpsError if the config asks for another precision than that of a file."""
    if cfg.TEST.PRECISION != "float32":
        raise KdpsError(
            f"TEST.PRECISION: is {cfg.TEST.PRECISION}, but an exported model computes in float32"
        )


class OnnxModel:
    """Runs a file of ``kdps export`` on the CPU; it detects, but embeds no boxes that are given.

    Attributes:
        weights: hash of the weights that the file was made of.
    """

    def __init__(self, path: Path, cfg: CfgNode) -> None:
        """
        Args:
            path: of the file.
            cfg: the config that it was exported with; only what is not fixed in the file may
                differ.

        Raises:
            KdpsError: the file cannot be read, is none of ``kdps export``, was exported with
                another config, or onnxruntime is missing.
        """
        self._session = open_session(path)
        entries = self._session.get_modelmeta().custom_metadata_map
        if not {WEIGHTS_ENTRY, ARCHITECTURE} <= entries.keys():
            raise KdpsError(f"{path}: was not written by kdps export, or by an older one")
        check_fixed_settings(cfg, entries, path)
        self.weights = entries[WEIGHTS_ENTRY]

    def __call__(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """``instances`` of each image; see ``PersonSearchInference.inference``."""
        return [{"instances": self._detect(record)} for record in batched_inputs]

    def _detect(self, record: dict[str, Any]) -> Instances:
        image = record["image"]
        found = self._session.run(list(OUTPUTS), {INPUT: image.float().numpy()})
        boxes, scores, embeddings = map(torch.from_numpy, found)
        size = tuple(image.shape[1:])
        persons = Instances(
            size,
            pred_boxes=Boxes(boxes),
            scores=scores,
            pred_classes=torch.zeros(len(scores), dtype=torch.int64),
            pred_embeddings=embeddings,
        )
        return detector_postprocess(
            persons, record.get("height", size[0]), record.get("width", size[1])
        )
