# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""One image in, people with embeddings out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import nn

import kdps.modeling  # noqa: F401  (registers the models)
from kdps.checkpoint.checkpointer import PersonSearchCheckpointer
from kdps.checkpoint.fingerprint import weights_hash
from kdps.data.image_input import ImageInput
from kdps.errors import KdpsError
from kdps.evaluation.assemble import ImagePrediction
from kdps.index.base import ModelIdentity
from kdps.modeling.inference import prepare_for_inference

# Pixels of an image that is only looked at for the size of the embeddings.
_BLANK = 128


def load_for_inference(cfg: CfgNode) -> nn.Module:
    """The model of a config with MODEL.WEIGHTS, prepared to run and not to be trained.

    Raises:
        KdpsError: MODEL.WEIGHTS is empty, cannot be had, or is of another model.
    """
    if not cfg.MODEL.WEIGHTS:
        raise KdpsError("MODEL.WEIGHTS: empty; name the checkpoint of a trained model")
    model = build_model(cfg)
    PersonSearchCheckpointer(model).load_complete(cfg.MODEL.WEIGHTS)
    return prepare_for_inference(model)


def load_person_finder(cfg: CfgNode) -> nn.Module:
    """Like :func:`load_for_inference`, for images that are of no data set.

    Raises:
        KdpsError: as there; or the config takes boxes from elsewhere, where such images have none.
    """
    boxes = cfg.TEST.PERSON_SEARCH.BOXES
    if boxes:
        raise KdpsError(
            f"TEST.PERSON_SEARCH.BOXES: {boxes!r} has no boxes of single images; leave it empty, "
            "and take a model that finds people itself"
        )
    return load_for_inference(cfg)


@torch.no_grad()
def model_identity(model: nn.Module) -> ModelIdentity:
    """What an index has to know of a model that is prepared to run.

    Raises:
        KdpsError: the model gives no embeddings.
    """
    # Nobody is in it, which the size does not depend on.
    blank = {"image": torch.zeros(3, _BLANK, _BLANK), "height": _BLANK, "width": _BLANK}
    prediction = ImagePrediction.from_output("blank image", model([blank])[0])
    return ModelIdentity(weights_hash(model), prediction.emb.shape[1])


class PersonSearchPredictor:
    """Like Detectron2's ``DefaultPredictor``, with boxes to embed beside the detections.

    Example:
        >>> predictor = PersonSearchPredictor(cfg)
        >>> output = predictor(cv2.imread("street.jpg"), np.array([[10.0, 20.0, 60.0, 180.0]]))
        >>> output["queries"].pred_embeddings @ output["instances"].pred_embeddings.T
    """

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: config whose MODEL.WEIGHTS fills the whole model.

        Raises:
            KdpsError: see :func:`load_person_finder`.
        """
        self.cfg = cfg.clone()
        self.model = load_person_finder(self.cfg)
        self._input = ImageInput(self.cfg)

    @torch.no_grad()
    def __call__(self, image: np.ndarray, boxes: np.ndarray | None = None) -> dict[str, Any]:
        """Find and embed people.

        Args:
            image: (H, W, 3) uint8, BGR as from ``cv2.imread``.
            boxes: (Q, 4) XYXY pixels of ``image`` to embed as they are.

        Returns:
            the model's output for this image, in its pixels: ``instances`` with ``pred_boxes,
            scores, pred_classes, pred_embeddings``; with ``boxes`` also ``queries`` with
            ``pred_boxes, query_ids`` (rows of ``boxes``) ``, pred_embeddings``.

        Raises:
            KdpsError: the image or the boxes have the wrong shape, or a box has no area inside.
        """
        record, transforms = self._input(image)
        height, width = image.shape[:2]
        if boxes is not None:
            boxes = _check_boxes(boxes, height, width)
            queries = Instances(tuple(record["image"].shape[1:]))
            moved = transforms.apply_box(boxes)
            queries.boxes = Boxes(torch.as_tensor(moved, dtype=torch.float32))
            queries.query_ids = torch.arange(len(boxes))
            record["queries"] = queries
        return self.model([record])[0]


def _check_boxes(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise KdpsError(f"boxes: expected (Q, 4) XYXY pixels, not an array of shape {boxes.shape}")
    clipped = boxes.clip(0, [width, height, width, height])
    inside = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    if not inside.all():
        worst = boxes[~inside][0].tolist()
        raise KdpsError(f"boxes: {worst} (XYXY) has no area in the {width} x {height} image")
    return boxes
