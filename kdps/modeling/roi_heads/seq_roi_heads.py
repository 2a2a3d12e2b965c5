# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""SeqNet's heads: a Faster R-CNN stage that refines proposals, then a norm-aware re-ID stage."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, nms
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    FastRCNNOutputLayers,
    ROIHeads,
    build_box_head,
)
from detectron2.structures import Boxes, ImageList, Instances
from torch import nn

from kdps.errors import KdpsError
from kdps.modeling.roi_heads.norm_aware import NormAwareOutputLayers, NormAwarePredictions


@ROI_HEADS_REGISTRY.register()
class SeqROIHeads(ROIHeads):
    """ "Sequential End-to-end Network for Efficient Person Search" (Li and Miao, AAAI 2021).

    Stage 1 is a Faster R-CNN head on the RPN's proposals; its boxes are the proposals of stage 2,
    the head of NAE. Each stage has its own copy of the box head. At test time the score of a
    detection is that of stage 1; stage 2 gives its final box and its embedding. As everywhere in
    Detectron2, class 0 is the person and the background comes last.
    """

    @configurable
    def __init__(
        self,
        *,
        in_features: list[str],
        pooler: ROIPooler,
        box_head: nn.Module,
        box_predictor: FastRCNNOutputLayers,
        reid_box_head: nn.Module,
        reid_predictor: NormAwareOutputLayers,
        test_score_thresh: float,
        test_nms_thresh: float,
        test_topk_per_image: int,
        **kwargs,
    ) -> None:
        """
        Args:
            in_features: name of the one feature map to pool from.
            pooler: region pooler, shared by both stages.
            box_head: region features of stage 1.
            box_predictor: classes and boxes of stage 1.
            reid_box_head: region features of stage 2.
            reid_predictor: boxes and embeddings of stage 2.
            test_score_thresh: detections must score higher.
            test_nms_thresh: IoU threshold of the suppression after stage 2.
            test_topk_per_image: detections kept per image; -1 keeps all.
            kwargs: see :class:`detectron2.modeling.ROIHeads`.
        """
        super().__init__(**kwargs)
        self.in_features = in_features
        self.pooler = pooler
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.reid_box_head = reid_box_head
        self.reid_predictor = reid_predictor
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        ret = super().from_config(cfg)
        in_features = cfg.MODEL.ROI_HEADS.IN_FEATURES
        shape = input_shape[in_features[0]]
        box_cfg = cfg.MODEL.ROI_BOX_HEAD
        size = box_cfg.POOLER_SIZE or (box_cfg.POOLER_RESOLUTION,) * 2
        pooled = ShapeSpec(channels=shape.channels, height=size[0], width=size[1])
        box_head = build_box_head(cfg, pooled)
        features = box_head.output_shape
        if not isinstance(features, dict) or not {"res4", "res5"} <= features.keys():
            raise KdpsError(
                f"MODEL.ROI_BOX_HEAD.NAME: SeqROIHeads needs a head that returns 'res4' and "
                f"'res5', such as Res5BoxHead; {box_cfg.NAME} does not declare them"
            )
        reid_box_head = build_box_head(cfg, pooled)
        ret.update(
            in_features=in_features,
            pooler=ROIPooler(
                output_size=size,
                scales=(1.0 / shape.stride,),
                sampling_ratio=box_cfg.POOLER_SAMPLING_RATIO,
                pooler_type=box_cfg.POOLER_TYPE,
            ),
            box_head=box_head,
            box_predictor=FastRCNNOutputLayers(cfg, features["res5"]),
            reid_box_head=reid_box_head,
            reid_predictor=NormAwareOutputLayers(cfg, reid_box_head.output_shape),
            test_score_thresh=cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
            test_nms_thresh=cfg.MODEL.REID_HEAD.NMS_THRESH_TEST,
            test_topk_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
        )
        return ret

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """See :meth:`detectron2.modeling.ROIHeads.forward`.

        Targets need ``gt_boxes``, ``gt_classes`` (all 0) and ``gt_pids`` (-1 unlabelled).

        Returns:
            In training an empty list and the losses; at test time the detections of each image
            (``pred_boxes`` in pixels of the network input, ``scores``, ``pred_classes``,
            ``pred_embeddings``) and no losses.
        """
        if self.training:
            return [], self._losses(features, proposals, targets)
        predictions = self._first_stage(features, proposals)
        detections, _ = self.box_predictor.inference(predictions, proposals)
        return self._refine(features, detections), {}

    def embed_boxes(
        self, features: dict[str, torch.Tensor], boxes: list[Boxes]
    ) -> list[torch.Tensor]:
        """Embeddings of given boxes, such as queries.

        Args:
            features: feature maps of the backbone.
            boxes: for each image, R_i boxes in pixels of the network input.

        Returns:
            For each image (R_i, D) rows of unit length, in the order of the boxes.
        """
        embeddings = self._second_stage(features, boxes).embeddings
        return list(embeddings.split([len(b) for b in boxes]))

    def _losses(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances],
    ) -> dict[str, torch.Tensor]:
        proposals = self.label_and_sample_proposals(proposals, targets)
        predictions = self._first_stage(features, proposals)
        losses = self.box_predictor.losses(predictions, proposals)
        with torch.no_grad():
            refined = self.box_predictor.predict_boxes(predictions, proposals)
            refined = [
                _as_proposals(boxes, p.image_size)
                for boxes, p in zip(refined, proposals, strict=True)
            ]
        # The ground truth joins the candidates of this stage as well.
        refined = self.label_and_sample_proposals(refined, targets)
        outputs = self._second_stage(features, [p.proposal_boxes for p in refined])
        losses.update(self.reid_predictor.losses(outputs, refined))
        return losses

    def _refine(
        self, features: dict[str, torch.Tensor], detections: list[Instances]
    ) -> list[Instances]:
        for d in detections:
            d.proposal_boxes = d.pred_boxes
        outputs = self._second_stage(features, [d.pred_boxes for d in detections])
        counts = [len(d) for d in detections]
        embeddings = outputs.embeddings.split(counts)
        refined = self.reid_predictor.predict_boxes(outputs, detections)
        results = []
        for detection, boxes, rows in zip(detections, refined, embeddings, strict=True):
            boxes = Boxes(boxes)
            boxes.clip(detection.image_size)
            # As published: what refinement has made thinner than this finds nobody.
            keep = boxes.nonempty(1e-2).nonzero().flatten()
            keep = keep[nms(boxes.tensor[keep], detection.scores[keep], self.test_nms_thresh)]
            if self.test_topk_per_image >= 0:
                keep = keep[: self.test_topk_per_image]
            results.append(
                Instances(
                    detection.image_size,
                    pred_boxes=boxes[keep],
                    scores=detection.scores[keep],
                    pred_classes=detection.pred_classes[keep],
                    pred_embeddings=rows[keep],
                )
            )
        return results

    def _first_stage(
        self, features: dict[str, torch.Tensor], proposals: list[Instances]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = self._pool(features, [p.proposal_boxes for p in proposals])
        return self.box_predictor(self.box_head(pooled)["res5"])

    def _second_stage(
        self, features: dict[str, torch.Tensor], boxes: list[Boxes]
    ) -> NormAwarePredictions:
        return self.reid_predictor(self.reid_box_head(self._pool(features, boxes)))

    def _pool(self, features: dict[str, torch.Tensor], boxes: list[Boxes]) -> torch.Tensor:
        return self.pooler([features[f] for f in self.in_features], boxes)


def _as_proposals(boxes: torch.Tensor, image_size: tuple[int, int]) -> Instances:
    boxes = Boxes(boxes)
    boxes.clip(image_size)
    # Sampling wants a logit for every proposal and does not look at it.
    logits = boxes.tensor.new_zeros(len(boxes))
    return Instances(image_size, proposal_boxes=boxes, objectness_logits=logits)
