# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What the heads share whose first stage only detects: SeqNet's and COAT's."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Instances
from torch import nn

from kdps.modeling.roi_heads.box_predictor import DetectionOutputLayers
from kdps.modeling.roi_heads.distillable import describe_boxes, places_of
from kdps.modeling.roi_heads.person_search_heads import PersonSearchROIHeads
from kdps.structures.distill_outputs import PersonOutputs, Places


class StagedROIHeads(PersonSearchROIHeads):
    """Heads with a Faster R-CNN stage on the RPN's proposals, and re-ID stages on its boxes."""

    @configurable
    def __init__(
        self, *, box_head: nn.Module, box_predictor: DetectionOutputLayers, **kwargs
    ) -> None:
        """
        Args:
            box_head: region features of stage 1.
            box_predictor: classes and boxes of stage 1.
            kwargs: see :class:`PersonSearchROIHeads`.
        """
        super().__init__(**kwargs)
        self.box_head = box_head
        self.box_predictor = box_predictor

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        return {
            **super().from_config(cfg, input_shape),
            "test_nms_thresh": cfg.MODEL.REID_HEAD.NMS_THRESH_TEST,
        }

    def _first_stage(
        self, features: dict[str, torch.Tensor], proposals: list[Instances]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and box deltas of the proposals of all images."""
        boxes = [p.proposal_boxes for p in proposals]
        return self.box_predictor(self._describe_regions(self.box_head, features, boxes)["res5"])

    def _tell_first(
        self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: list[Instances]
    ) -> None:
        """Tell a distillation what stage 1 says of sampled proposals."""
        said = describe_boxes(self.box_predictor, predictions, places_of(proposals))
        self._tell("detector", said, proposals)

    def _describe_first(self, features: dict[str, torch.Tensor], places: Places) -> PersonOutputs:
        """What stage 1 says of given regions."""
        described = self._describe_regions(self.box_head, features, places.boxes)
        return describe_boxes(self.box_predictor, self.box_predictor(described["res5"]), places)

    def _detect_first(
        self, features: dict[str, torch.Tensor], proposals: list[Instances]
    ) -> list[Instances]:
        """Detections of stage 1 at test time, for each image."""
        predictions = self._first_stage(features, proposals)
        return self.box_predictor.inference(predictions, proposals)[0]
