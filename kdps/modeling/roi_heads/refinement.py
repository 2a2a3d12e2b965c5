# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Boxes from one stage of a head to the next."""

from __future__ import annotations

import torch
from detectron2.layers import nms
from detectron2.structures import Boxes, Instances


def as_proposals(boxes: list[torch.Tensor], proposals: list[Instances]) -> list[Instances]:
    """Boxes that a stage refined in training, as candidates of the next stage.

    Args:
        boxes: for each image (R_i, 4) XYXY pixels of the network input.
        proposals: what the boxes were refined from; only their image sizes are used.

    Returns:
        ``proposal_boxes``, clipped to the image.
    """
    candidates = []
    for tensor, before in zip(boxes, proposals, strict=True):
        own = Boxes(tensor)
        own.clip(before.image_size)
        # Sampling wants a logit for every proposal and does not look at it.
        logits = tensor.new_zeros(len(tensor))
        candidates.append(
            Instances(before.image_size, proposal_boxes=own, objectness_logits=logits)
        )
    return candidates


def detections_as_proposals(detections: list[Instances]) -> list[Instances]:
    """The ``pred_boxes`` of each image as the ``proposal_boxes`` of the next stage at test time."""
    return [Instances(d.image_size, proposal_boxes=d.pred_boxes) for d in detections]


def refine_detections(
    detections: list[Instances], boxes: list[torch.Tensor], nms_thresh: float, topk: int = -1
) -> list[Instances]:
    """Detections with the boxes that a stage refined, after another suppression.

    Args:
        detections: for each image at least ``scores``, by which boxes suppress others.
        boxes: for each image (R_i, 4) XYXY pixels of the network input.
        nms_thresh: IoU threshold of the suppression.
        topk: detections kept per image; -1 keeps all.

    Returns:
        ``pred_boxes``, clipped to the image, and the other fields, by falling score.
    """
    results = []
    for detection, tensor in zip(detections, boxes, strict=True):
        own = Boxes(tensor)
        own.clip(detection.image_size)
        # As published: what refinement has made thinner than this finds nobody.
        keep = own.nonempty(1e-2).nonzero().flatten()
        keep = keep[nms(own.tensor[keep], detection.scores[keep], nms_thresh)]
        if topk >= 0:
            keep = keep[:topk]
        refined = detection[keep]
        refined.pred_boxes = own[keep]
        results.append(refined)
    return results
