# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What the heads of two-stage methods share: pooled regions, and embeddings of given boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import ROIHeads, build_box_head
from detectron2.structures import Boxes, ImageList, Instances
from torch import nn

from kdps.errors import KdpsError
from kdps.modeling.roi_heads.distillable import DistillableHeads
from kdps.modeling.roi_heads.refinement import refine_detections

# As many pooled regions of the published size fill a processor's cache.
_REGIONS_AT_ONCE = 32


class PersonSearchROIHeads(DistillableHeads, ROIHeads):
    """Heads that pool regions of shared feature maps, detect people and embed them.

    A method says how it trains (:meth:`_losses`), detects (:meth:`_detect`) and embeds
    (:meth:`_embed`). As everywhere in Detectron2, class 0 is the person and the background comes
    last.
    """

    @configurable
    def __init__(
        self,
        *,
        in_features: list[str],
        pooler: ROIPooler,
        test_score_thresh: float,
        test_nms_thresh: float,
        test_topk_per_image: int,
        **kwargs,
    ) -> None:
        """
        Args:
            in_features: names of the feature maps to pool from, of one in a pyramid each region.
            pooler: region pooler.
            test_score_thresh: detections must score higher.
            test_nms_thresh: IoU threshold of the last suppression.
            test_topk_per_image: detections kept per image; -1 keeps all.
            kwargs: see :class:`detectron2.modeling.ROIHeads`.
        """
        super().__init__(**kwargs)
        self.in_features = in_features
        self.pooler = pooler
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        in_features = cfg.MODEL.ROI_HEADS.IN_FEATURES
        pooled = cls._pooled_shape(cfg, input_shape)
        box_cfg = cfg.MODEL.ROI_BOX_HEAD
        return {
            **super().from_config(cfg),
            "in_features": in_features,
            "pooler": ROIPooler(
                output_size=(pooled.height, pooled.width),
                scales=[1.0 / input_shape[name].stride for name in in_features],
                sampling_ratio=box_cfg.POOLER_SAMPLING_RATIO,
                pooler_type=box_cfg.POOLER_TYPE,
            ),
            "test_score_thresh": cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
            "test_nms_thresh": cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
            "test_topk_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    @staticmethod
    def _pooled_shape(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> ShapeSpec:
        """Channels, height and width of a pooled region."""
        box_cfg = cfg.MODEL.ROI_BOX_HEAD
        height, width = box_cfg.POOLER_SIZE or (box_cfg.POOLER_RESOLUTION,) * 2
        channels = input_shape[cfg.MODEL.ROI_HEADS.IN_FEATURES[0]].channels
        return ShapeSpec(channels=channels, height=height, width=width)

    @classmethod
    def _build_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
        """A new box head that describes a region by the features "res4" and "res5".

        Raises:
            KdpsError: the one in the config describes it otherwise.
        """
        box_head = build_box_head(cfg, cls._pooled_shape(cfg, input_shape))
        features = box_head.output_shape
        if not isinstance(features, dict) or not {"res4", "res5"} <= features.keys():
            raise KdpsError(
                f"MODEL.ROI_BOX_HEAD.NAME: {cls.__name__} needs a head that returns 'res4' and "
                f"'res5', such as Res5BoxHead; {cfg.MODEL.ROI_BOX_HEAD.NAME} does not declare them"
            )
        return box_head

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
            return [], self.train_on(features, proposals, targets)[0]
        return self._detect(features, proposals), {}

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
        return list(self._embed(features, boxes).split([len(b) for b in boxes]))

    def _losses(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances],
    ) -> dict[str, torch.Tensor]:
        """Losses of one training step."""
        raise NotImplementedError

    def _detect(
        self, features: dict[str, torch.Tensor], proposals: list[Instances]
    ) -> list[Instances]:
        """Detections of each image."""
        raise NotImplementedError

    def _embed(self, features: dict[str, torch.Tensor], boxes: list[Boxes]) -> torch.Tensor:
        """(R, D) embeddings of the boxes of all images."""
        raise NotImplementedError

    def _describe_regions(
        self,
        box_head: Callable[[torch.Tensor], dict[str, torch.Tensor]],
        features: dict[str, torch.Tensor],
        boxes: list[Boxes],
    ) -> dict[str, torch.Tensor]:
        """What a box head says of the regions of all images, pooled from the feature maps.

        At test time on a CPU a part of them goes through at a time, which changes nothing but the
        speed and the memory. When traced, all do: the number of parts would be that of the trace.
        """
        # Pooling computes in float32 anyway, but takes its boxes in the precision of the maps: in
        # bfloat16 they would lie on a grid of several pixels.
        maps = [features[f].float() for f in self.in_features]
        if self.training or maps[0].device.type != "cpu" or torch.jit.is_tracing():
            return box_head(self.pooler(maps, boxes))
        # Once and not for each part.
        maps = [m.contiguous() for m in maps]
        described = [
            box_head(self.pooler(maps, part)) for part in split_boxes(boxes, _REGIONS_AT_ONCE)
        ]
        return {name: torch.cat([d[name] for d in described]) for name in described[0]}

    def _choose(
        self,
        proposals: list[Instances],
        boxes: Sequence[torch.Tensor],
        scores: Sequence[torch.Tensor],
        embeddings: Sequence[torch.Tensor],
    ) -> list[Instances]:
        """Detections of each image: proposals that score enough and that no better one overlaps.

        Args:
            proposals: of each image; only their sizes are used.
            boxes: for each image (R_i, 4), their boxes as regressed.
            scores: for each image (R_i,).
            embeddings: for each image (R_i, D).
        """
        candidates, good_boxes = [], []
        for p, own_boxes, own_scores, rows in zip(
            proposals, boxes, scores, embeddings, strict=True
        ):
            good = own_scores > self.test_score_thresh
            candidate = Instances(p.image_size, scores=own_scores[good], pred_embeddings=rows[good])
            candidate.pred_classes = torch.zeros(
                len(candidate), dtype=torch.int64, device=rows.device
            )
            candidates.append(candidate)
            good_boxes.append(own_boxes[good])
        return refine_detections(
            candidates, good_boxes, self.test_nms_thresh, self.test_topk_per_image
        )


def split_boxes(boxes: list[Boxes], size: int) -> list[list[Boxes]]:
    """Parts of at most ``size`` boxes, in order; each has a (maybe empty) entry for every image."""
    parts = []
    for start in range(0, max(sum(map(len, boxes)), 1), size):
        part, first = [], 0
        for own in boxes:
            part.append(own[max(0, start - first) : max(0, start + size - first)])
            first += len(own)
        parts.append(part)
    return parts


def matched_boxes(proposals: list[Instances]) -> torch.Tensor:
    """(R, 4) boxes of the persons that sampled proposals were matched with, of all images.

    In an image without people they are the proposals' own and say nothing.
    """
    # Proposals of an image without people have no gt_boxes.
    return cat([(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes).tensor for p in proposals])
