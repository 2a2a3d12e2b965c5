# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""OIM-Net's heads: score, box and embedding side by side, all from the same region feature."""

from __future__ import annotations

from dataclasses import replace

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY
from detectron2.structures import Boxes, Instances
from torch import nn

from kdps.modeling.inclusive_boxes import InclusiveBoxTransform, clip_inclusive, enlarged
from kdps.modeling.losses import OIMLoss, build_oim_loss
from kdps.modeling.reid_heads import build_reid_head
from kdps.modeling.roi_heads.box_predictor import DetectionOutputLayers
from kdps.modeling.roi_heads.distillable import describe_boxes, matched_pids, places_of
from kdps.modeling.roi_heads.person_search_heads import PersonSearchROIHeads
from kdps.structures.distill_outputs import PersonOutputs, Places
from kdps.structures.input_size import scale_of


@ROI_HEADS_REGISTRY.register()
class OIMROIHeads(PersonSearchROIHeads):
    """ "Joint Detection and Identification Feature Learning for Person Search" (Xiao et al., CVPR
    2017), section 3.1.

    A Faster R-CNN head with an embedding beside its classifier and its box regression. As in the
    public code, the last corner of a box is a pixel of it; in training of the network input, at
    test time of the original image.
    """

    stages = ("reid",)

    @configurable
    def __init__(
        self,
        *,
        box_head: nn.Module,
        box_predictor: DetectionOutputLayers,
        embedding_head: nn.Module,
        oim: OIMLoss,
        reid_loss_weight: float,
        **kwargs,
    ) -> None:
        """
        Args:
            box_head: region features.
            box_predictor: classes and boxes, with an ``InclusiveBoxTransform``.
            embedding_head: see ``REID_HEADS_REGISTRY``; its person logits are not used.
            oim: the re-ID loss and its memory.
            reid_loss_weight: factor on that loss.
            kwargs: see :class:`PersonSearchROIHeads`.
        """
        super().__init__(**kwargs)
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.embedding_head = embedding_head
        self.oim = oim
        self.reid_loss_weight = reid_loss_weight

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        ret = super().from_config(cfg, input_shape)
        box_head = cls._build_box_head(cfg, input_shape)
        transform = InclusiveBoxTransform(cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS)
        ret.update(
            box_head=box_head,
            box_predictor=DetectionOutputLayers(
                cfg, box_head.output_shape["res5"], box2box_transform=transform
            ),
            embedding_head=build_reid_head(cfg, box_head.output_shape, scores_people=False),
            oim=build_oim_loss(cfg),
            reid_loss_weight=cfg.MODEL.REID_HEAD.LOSS_WEIGHT,
        )
        return ret

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """See :meth:`detectron2.modeling.ROIHeads.label_and_sample_proposals`."""
        # Boxes overlap with their last pixels, too.
        sampled = super().label_and_sample_proposals(
            [_with_last_pixel(p, "proposal_boxes", 1.0) for p in proposals],
            [_with_last_pixel(t, "gt_boxes", 1.0) for t in targets],
        )
        sampled = [_with_last_pixel(p, "proposal_boxes", -1.0) for p in sampled]
        return [_with_last_pixel(p, "gt_boxes", -1.0) if p.has("gt_boxes") else p for p in sampled]

    def _losses(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances],
    ) -> dict[str, torch.Tensor]:
        proposals = self.label_and_sample_proposals(proposals, targets)
        places = places_of(proposals)
        predictions, embeddings = self._predict(features, places)
        losses = self.box_predictor.losses(predictions, proposals)
        self._tell("reid", self._described(predictions, embeddings, places), proposals)
        is_person = cat([p.gt_classes for p in proposals]) == 0
        loss = self.oim(embeddings[is_person], matched_pids(proposals)[is_person])
        losses["loss_oim"] = loss * self.reid_loss_weight
        return losses

    def _detect(
        self, features: dict[str, torch.Tensor], proposals: list[Instances]
    ) -> list[Instances]:
        (logits, deltas), embeddings = self._predict(features, places_of(proposals))
        counts = [len(p) for p in proposals]
        boxes = []
        for p, own in zip(proposals, deltas.split(counts), strict=True):
            pixel = scale_of(p.image_size)
            moved = self.box_predictor.box2box_transform.apply_deltas(
                own, p.proposal_boxes.tensor, pixel
            )
            boxes.append(clip_inclusive(moved, p.image_size, pixel))
        scores = logits.softmax(dim=1)[:, 0].split(counts)
        return self._choose(proposals, boxes, scores, embeddings.split(counts))

    def _embed(self, features: dict[str, torch.Tensor], boxes: list[Boxes]) -> torch.Tensor:
        return self.embedding_head(self._describe(features, boxes))[0]

    def _describe_stage(
        self, stage: str, features: dict[str, torch.Tensor], places: Places
    ) -> PersonOutputs:
        return self._described(*self._predict(features, places), places)

    def memories(self) -> dict[str, OIMLoss]:
        return {"reid": self.oim}

    def _described(
        self,
        predictions: tuple[torch.Tensor, torch.Tensor],
        embeddings: torch.Tensor,
        places: Places,
    ) -> PersonOutputs:
        return replace(
            describe_boxes(self.box_predictor, predictions, places), embeddings=embeddings
        )

    def _predict(
        self, features: dict[str, torch.Tensor], places: Places
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Class logits and box deltas, and the embeddings, of the regions of all images."""
        described = self._describe(features, places.boxes)
        return self.box_predictor(described["res5"]), self.embedding_head(described)[0]

    def _describe(
        self, features: dict[str, torch.Tensor], boxes: list[Boxes]
    ) -> dict[str, torch.Tensor]:
        # Unlike RoIAlign's, the operator of RoIPool takes no half-precision features.
        single = {name: features[name].float() for name in self.in_features}
        return self._describe_regions(self.box_head, single, boxes)


def _with_last_pixel(instances: Instances, field: str, pixels: float) -> Instances:
    """A copy whose boxes end so many pixels later."""
    fields = instances.get_fields()
    moved = Boxes(enlarged(fields[field].tensor, pixels))
    return Instances(instances.image_size, **{**fields, field: moved})
