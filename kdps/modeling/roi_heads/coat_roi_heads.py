# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""COAT's heads: a cascade of a detection stage and re-ID stages with tighter and tighter boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_BOX_HEAD_REGISTRY
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage
from torch import nn

from kdps.errors import KdpsError
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
class CoatROIHeads(StagedROIHeads):
    """ "Cascade Transformers for End-to-End Person Search" (Yu et al., CVPR 2022).

    Stage 1 is a Faster R-CNN head on the RPN's proposals. Each later stage is a head of NAE, with a
    lookup table of its own, on the boxes of the stage before; the overlap that makes a box a person
    in training grows from stage to stage. At test time the score of a detection is that of stage 1,
    its box is that of the last stage, and its embedding joins those of all re-ID stages, each of
    the box that the last stage is given.
    """

    @configurable
    def __init__(
        self,
        *,
        reid_box_heads: list[nn.Module],
        reid_predictors: list[NormAwareOutputLayers],
        proposal_matchers: list[Matcher],
        stage_nms_thresh: float,
        **kwargs,
    ) -> None:
        """
        Args:
            reid_box_heads: region features of each later stage.
            reid_predictors: boxes and embeddings of each later stage.
            proposal_matchers: for each stage, what its candidates are in training.
            stage_nms_thresh: IoU threshold of the suppression after a re-ID stage that is not the
                last; stage 1's is that of its predictor.
            kwargs: see :class:`StagedROIHeads`.
        """
        super().__init__(proposal_matcher=proposal_matchers[0], **kwargs)
        self.reid_box_heads = nn.ModuleList(reid_box_heads)
        self.reid_predictors = nn.ModuleList(reid_predictors)
        self.proposal_matchers = proposal_matchers
        self.stage_nms_thresh = stage_nms_thresh
        self.stages = ("detector", *self._reid_names())

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        _check_cascade(cfg)
        ious = cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS
        first, *later = (_stage_config(cfg, stage) for stage in range(len(ious)))
        ret = super().from_config(cfg, input_shape)
        # Each stage has one of its own.
        del ret["proposal_matcher"]
        box_head = cls._build_box_head(first, input_shape)
        reid_box_heads = [cls._build_box_head(own, input_shape) for own in later]
        ret.update(
            box_head=box_head,
            box_predictor=DetectionOutputLayers(first, box_head.output_shape["res5"]),
            reid_box_heads=reid_box_heads,
            reid_predictors=[
                NormAwareOutputLayers(own, head.output_shape)
                for own, head in zip(later, reid_box_heads, strict=True)
            ],
            proposal_matchers=[
                Matcher([iou], [0, 1], allow_low_quality_matches=False) for iou in ious
            ],
            stage_nms_thresh=cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
        )
        return ret

    def _losses(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances],
    ) -> dict[str, torch.Tensor]:
        predictor = self.box_predictor
        proposals = self._sample(1, proposals, targets)
        predictions = self._first_stage(features, proposals)
        losses = predictor.losses(predictions, proposals)
        self._tell_first(predictions, proposals)
        for stage, (box_head, next_predictor) in enumerate(self._reid_stages(), start=2):
            with torch.no_grad():
                boxes = predictor.predict_boxes(predictions, proposals)
                candidates = as_proposals(boxes, proposals)
            predictor = next_predictor
            # The ground truth joins the candidates of every stage.
            proposals = self._sample(stage, candidates, targets)
            places = places_of(proposals)
            predictions = predictor(self._describe_regions(box_head, features, places.boxes))
            self._tell(f"reid_{stage}", predictor.describe(predictions, places), proposals)
            for name, loss in predictor.losses(predictions, proposals).items():
                losses[f"{name}_stage{stage}"] = loss
        return losses

    def _sample(
        self, stage: int, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        # What label_and_sample_proposals matches with; it takes none.
        self.proposal_matcher = self.proposal_matchers[stage - 1]
        with get_event_storage().name_scope(f"stage{stage}"):
            return self.label_and_sample_proposals(proposals, targets)

    def _detect(
        self, features: dict[str, torch.Tensor], proposals: list[Instances]
    ) -> list[Instances]:
        detections = self._detect_first(features, proposals)
        for box_head, predictor in list(self._reid_stages())[:-1]:
            boxes = [d.pred_boxes for d in detections]
            outputs = predictor(self._describe_regions(box_head, features, boxes))
            boxes = predictor.predict_boxes(outputs, detections_as_proposals(detections))
            detections = refine_detections(detections, boxes, self.stage_nms_thresh)

        outputs = self._describe(features, [d.pred_boxes for d in detections])
        boxes = self.reid_predictors[-1].predict_boxes(
            outputs[-1], detections_as_proposals(detections)
        )
        embeddings = _join(outputs).split([len(d) for d in detections])
        for detection, rows in zip(detections, embeddings, strict=True):
            detection.pred_embeddings = rows
        return refine_detections(detections, boxes, self.test_nms_thresh, self.test_topk_per_image)

    def _embed(self, features: dict[str, torch.Tensor], boxes: list[Boxes]) -> torch.Tensor:
        return _join(self._describe(features, boxes))

    def _describe_stage(
        self, stage: str, features: dict[str, torch.Tensor], places: Places
    ) -> PersonOutputs:
        if stage == "detector":
            return self._describe_first(features, places)
        own = self._reid_names().index(stage)
        described = self._describe_regions(self.reid_box_heads[own], features, places.boxes)
        predictor = self.reid_predictors[own]
        return predictor.describe(predictor(described), places)

    def memories(self) -> dict[str, OIMLoss]:
        predictors = zip(self._reid_names(), self.reid_predictors, strict=True)
        return {name: predictor.oim for name, predictor in predictors}

    def _reid_names(self) -> list[str]:
        return [f"reid_{stage}" for stage in range(2, 2 + len(self.reid_predictors))]

    def _describe(
        self, features: dict[str, torch.Tensor], boxes: list[Boxes]
    ) -> list[NormAwarePredictions]:
        """What every re-ID stage says about the same boxes, which are pooled once for all."""

        def all_heads(pooled: torch.Tensor) -> dict[str, torch.Tensor]:
            return {
                f"{stage} {name}": feature
                for stage, box_head in enumerate(self.reid_box_heads)
                for name, feature in box_head(pooled).items()
            }

        described = self._describe_regions(all_heads, features, boxes)
        return [
            predictor({name: described[f"{stage} {name}"] for name in ("res4", "res5")})
            for stage, predictor in enumerate(self.reid_predictors)
        ]

    def _reid_stages(self) -> Iterator[tuple[nn.Module, NormAwareOutputLayers]]:
        return zip(self.reid_box_heads, self.reid_predictors, strict=True)


def _join(outputs: list[NormAwarePredictions]) -> torch.Tensor:
    """(R, stages * D) rows of unit length, whose cosines are the means of those of the stages."""
    return torch.cat([o.embeddings for o in outputs], dim=1) / math.sqrt(len(outputs))


def _stage_config(cfg: CfgNode, stage: int) -> CfgNode:
    """The config with what differs between the stages in the places where their parts look."""
    own = cfg.clone()
    own.defrost()
    box = own.MODEL.ROI_BOX_HEAD
    box.BBOX_REG_WEIGHTS = cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS[stage]
    if stage > 0:
        box.NAME = cfg.MODEL.COAT.REID_BOX_HEAD
    return own


def _check_cascade(cfg: CfgNode) -> None:
    """Raise a KdpsError if the config describes no cascade."""
    cascade, name = cfg.MODEL.ROI_BOX_CASCADE_HEAD, cfg.MODEL.COAT.REID_BOX_HEAD
    ious, weights = cascade.IOUS, cascade.BBOX_REG_WEIGHTS
    if len(ious) < 2 or len(ious) != len(weights):
        raise KdpsError(
            "MODEL.ROI_BOX_CASCADE_HEAD: IOUS and BBOX_REG_WEIGHTS must have one entry for each of "
            f"at least 2 stages, not {len(ious)} and {len(weights)}"
        )
    if list(cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS) != [ious[0]]:
        raise KdpsError(
            f"MODEL.ROI_HEADS.IOU_THRESHOLDS: must be [{ious[0]}], the first of "
            "MODEL.ROI_BOX_CASCADE_HEAD.IOUS"
        )
    if name not in ROI_BOX_HEAD_REGISTRY:
        known = ", ".join(sorted(known for known, _ in ROI_BOX_HEAD_REGISTRY))
        raise KdpsError(f"MODEL.COAT.REID_BOX_HEAD: unknown value {name!r}; known: {known}")
