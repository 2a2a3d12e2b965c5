# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""One image in, people with embeddings out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import nn

import kdps.modeling  # noqa: F401  (registers the models)
from kdps.checkpoint.checkpointer import PersonSearchCheckpointer
from kdps.data.dataset_mapper import build_augmentation
from kdps.errors import KdpsError
from kdps.modeling.inference import prepare_for_inference


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
            KdpsError: MODEL.WEIGHTS is empty, cannot be had, or is of another model.
        """
        self.cfg = cfg.clone()
        self.model = load_for_inference(self.cfg)
        self.augmentations = T.AugmentationList(build_augmentation(self.cfg, False))

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
        _check_image(image)
        height, width = image.shape[:2]
        if self.cfg.INPUT.FORMAT == "RGB":
            image = image[:, :, ::-1]
        aug_input = T.AugInput(image)
        transforms = self.augmentations(aug_input)
        pixels = np.ascontiguousarray(aug_input.image.transpose(2, 0, 1), dtype=np.float32)
        record = {"image": torch.as_tensor(pixels), "height": height, "width": width}
        if boxes is not None:
            boxes = _check_boxes(boxes, height, width)
            queries = Instances(aug_input.image.shape[:2])
            moved = transforms.apply_box(boxes)
            queries.boxes = Boxes(torch.as_tensor(moved, dtype=torch.float32))
            queries.query_ids = torch.arange(len(boxes))
            record["queries"] = queries
        return self.model([record])[0]


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise KdpsError(f"image: expected (H, W, 3) pixels, not an array of shape {image.shape}")


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
