# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""SeqNet's heads: a Faster R-CNN stage that refines proposals, then a norm-aware re-ID stage."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY
from detectron2.structures import Boxes, Instances
from torch import nn

from kdps.modeling.losses import OIMLoss
from kdps.modeling.roi_heads.box_predictor import DetectionOutputLayers
from kdps.modeling.roi_heads.distillable import places_of
from kdps.modeling.roi_heads.norm_aware import NormAwareOutputLayers, NormAwarePredictions
from kdps.modeling.roi_heads.refinement import (
    as_proposals,
    detections_as_proposals,
    refine_detections,
)
from kdps.modeling.roi_heads.staged_heads import StagedROIHeads
from kdps.structures.distill_outputs import PersonOutputs, Places


@ROI_HEADS_REGISTRY.register()
class SeqROIHeads(StagedROIHeads):
    """ "Sequential End-to-end Network for Efficient Person Search" (Li and Miao, AAAI 2021).

    Stage 1 is a Faster R-CNN head on the RPN's proposals; its boxes are the proposals of stage 2,
    the head of NAE. Each stage has its own copy of the box head. At test time the score of a
    detection is that of stage 1; stage 2 gives its final box and its embedding.
    """

    output_layers = NormAwareOutputLayers
    stages = ("detector", "reid")

    @configurable
    def __init__(
        self, *, reid_box_head: nn.Module, reid_predictor: NormAwareOutputLayers, **kwargs
    ) -> None:
        """
        Args:
            reid_box_head: region features of stage 2.
            reid_predictor: boxes and embeddings of stage 2.
            kwargs: see :class:`StagedROIHeads`.
        """
        super().__init__(**kwargs)
        self.reid_box_head = reid_box_head
        self.reid_predictor = reid_predictor

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        ret = super().from_config(cfg, input_shape)
        box_head = cls._build_box_head(cfg, input_shape)
        reid_box_head = cls._build_box_head(cfg, input_shape)
        ret.update(
            box_head=box_head,
            box_predictor=DetectionOutputLayers(cfg, box_head.output_shape["res5"]),
            reid_box_head=reid_box_head,
            reid_predictor=cls.output_layers(cfg, reid_box_head.output_shape),
        )
        return ret

    def _losses(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances],
    ) -> dict[str, torch.Tensor]:
        proposals = self.label_and_sample_proposals(proposals, targets)
        predictions = self._first_stage(features, proposals)
        losses = self.box_predictor.losses(predictions, proposals)
        self._tell_first(predictions, proposals)
        with torch.no_grad():
            refined = as_proposals(
                self.box_predictor.predict_boxes(predictions, proposals), proposals
            )
        # The ground truth joins the candidates of this stage as well.
        refined = self.label_and_sample_proposals(refined, targets)
        places = places_of(refined)
        outputs = self._second_stage(features, places.boxes)
        self._tell("reid", self.reid_predictor.describe(outputs, places), refined)
        losses.update(self.reid_predictor.losses(outputs, refined))
        return losses

    def _detect(
        self, features: dict[str, torch.Tensor], proposals: list[Instances]
    ) -> list[Instances]:
        return self._refine(features, self._detect_first(features, proposals))

    def _embed(self, features: dict[str, torch.Tensor], boxes: list[Boxes]) -> torch.Tensor:
        return self._second_stage(features, boxes).embeddings

    def _describe_stage(
        self, stage: str, features: dict[str, torch.Tensor], places: Places
    ) -> PersonOutputs:
        if stage == "detector":
            return self._describe_first(features, places)
        return self.reid_predictor.describe(self._second_stage(features, places.boxes), places)

    def memories(self) -> dict[str, OIMLoss]:
        return {"reid": self.reid_predictor.oim}

    def _refine(
        self, features: dict[str, torch.Tensor], detections: list[Instances]
    ) -> list[Instances]:
        outputs = self._second_stage(features, [d.pred_boxes for d in detections])
        boxes = self.reid_predictor.predict_boxes(outputs, detections_as_proposals(detections))
        embeddings = outputs.embeddings.split([d.scores.shape[0] for d in detections])
        for d, rows in zip(detections, embeddings, strict=True):
            d.pred_embeddings = rows
        detections, boxes = self._rescore(detections, boxes, outputs)
        return refine_detections(detections, boxes, self.test_nms_thresh, self.test_topk_per_image)

    def _rescore(
        self,
        detections: list[Instances],
        boxes: list[torch.Tensor],
        outputs: NormAwarePredictions,
    ) -> tuple[list[Instances], list[torch.Tensor]]:
        """Detections and their boxes with the scores by which they suppress each other."""
        return detections, boxes

    def _second_stage(
        self, features: dict[str, torch.Tensor], boxes: list[Boxes]
    ) -> NormAwarePredictions:
        return self.reid_predictor(self._describe_regions(self.reid_box_head, features, boxes))
