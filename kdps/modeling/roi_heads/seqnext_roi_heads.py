# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""SeqNeXt's heads: those of SeqNet, whose second stage classifies by itself and gives the score."""

from __future__ import annotations

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY
from detectron2.structures import Instances
from torch import nn

from kdps.layers.precision import in_float32
from kdps.modeling.roi_heads.norm_aware import NormAwareOutputLayers, NormAwarePredictions
from kdps.modeling.roi_heads.seq_roi_heads import SeqROIHeads


class LinearOutputLayers(NormAwareOutputLayers):
    """Person logits and boxes of a linear layer each, beside the embedding."""

    scores_by_length = False

    @configurable
    def __init__(self, *, input_shape: dict[str, ShapeSpec], **kwargs) -> None:
        """
        Args:
            input_shape: the region features; "res5" is classified, and boxes are regressed from it.
            kwargs: see :class:`NormAwareOutputLayers`.
        """
        super().__init__(input_shape=input_shape, **kwargs)
        channels = input_shape["res5"].channels
        self.cls_score = nn.Linear(channels, 1)
        self.bbox_pred = nn.Linear(channels, 4)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, features: dict[str, torch.Tensor]) -> NormAwarePredictions:
        """
        Args:
            features: (R, C) region features by name, as a box head returns them.
        """
        embeddings, _ = self.embedding_head(features)
        described = features["res5"]
        logits = in_float32(self.cls_score, described).squeeze(1)
        deltas = in_float32(self.bbox_pred, described)
        return NormAwarePredictions(deltas, logits, embeddings)


@ROI_HEADS_REGISTRY.register()
class SeqNeXtROIHeads(SeqROIHeads):
    """ "Gallery Filter Network for Person Search" (Jaffe and Zakhor, WACV 2023), section 3, without
    the filter.

    The length of an embedding says nothing. The score of a detection is that of stage 2; boxes that
    either stage scores too low are dropped.
    """

    output_layers = LinearOutputLayers

    def _rescore(
        self,
        detections: list[Instances],
        boxes: list[torch.Tensor],
        outputs: NormAwarePredictions,
    ) -> tuple[list[Instances], list[torch.Tensor]]:
        good_detections, good_boxes = [], []
        logits = outputs.person_logits.split([len(d) for d in detections])
        for d, own_boxes, own_logits in zip(detections, boxes, logits, strict=True):
            d.scores = own_logits.float().sigmoid()
            good = d.scores > self.test_score_thresh
            good_detections.append(d[good])
            good_boxes.append(own_boxes[good])
        return good_detections, good_boxes
