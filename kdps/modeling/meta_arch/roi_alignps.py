# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Anchor-free person search that also looks at regions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_proposal_generator, build_roi_heads
from detectron2.structures import Boxes, ImageList, Instances

from kdps.modeling.losses import OIMLoss
from kdps.modeling.meta_arch.alignps import AlignPS
from kdps.modeling.meta_arch.distillable import Losses
from kdps.modeling.meta_arch.inference import Features
from kdps.modeling.roi_heads import PersonSearchROIHeads
from kdps.structures.distill_outputs import PersonOutputs, Places

# Ends of the names of the stages that look at regions.
_REGIONS = "_roi"


@META_ARCH_REGISTRY.register()
class ROIAlignPS(AlignPS):
    """ "Efficient Person Search: An Anchor-Free Approach" (Yan et al., 2021), ROI-AlignPS.

    AlignPS with the heads of NAE beside it, on MODEL.ROI_HEADS.IN_FEATURES: a map of the trunk, as
    in the public code, or one of the neck. In training they get proposals of an RPN; at test time
    the boxes that AlignPS finds. An embedding is that of the cell and that of the region, joined
    and divided by the root of 2.
    """

    @configurable
    def __init__(
        self,
        *,
        proposal_generator: torch.nn.Module,
        roi_heads: PersonSearchROIHeads,
        **kwargs,
    ) -> None:
        """
        Args:
            proposal_generator: of the regions in training.
            roi_heads: what embeds regions.
            kwargs: see :class:`AlignPS`.
        """
        super().__init__(**kwargs)
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        ret = super().from_config(cfg)
        own, shapes = _region_config(cfg), ret["backbone"].output_shape()
        ret["proposal_generator"] = build_proposal_generator(own, shapes)
        ret["roi_heads"] = build_roi_heads(own, shapes)
        return ret

    def _train(
        self,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        features: Features,
        targets: list[Instances],
    ) -> tuple[Losses, dict[str, PersonOutputs]]:
        losses, people = super()._train(batched_inputs, images, features, targets)
        proposals, proposal_losses = self.proposal_generator(images, features, targets)
        region_losses, regions = self.roi_heads.train_on(features, proposals, targets)
        losses.update(proposal_losses)
        losses.update({f"{name}_roi": loss for name, loss in region_losses.items()})
        people.update({f"{stage}{_REGIONS}": said for stage, said in regions.items()})
        return losses, people

    def describe_people(
        self, images: ImageList, features: Features, stage: str, places: Places
    ) -> PersonOutputs:
        if stage.endswith(_REGIONS):
            return self.roi_heads.describe_people(features, stage.removesuffix(_REGIONS), places)
        return super().describe_people(images, features, stage, places)

    @property
    def stages(self) -> tuple[str, ...]:
        """Those of the cells, then those of the regions."""
        return *super().stages, *(f"{stage}{_REGIONS}" for stage in self.roi_heads.stages)

    def memories(self) -> Mapping[str, OIMLoss]:
        regions = self.roi_heads.memories()
        return {
            **super().memories(),
            **{f"{stage}{_REGIONS}": own for stage, own in regions.items()},
        }

    def _detect(self, images: ImageList, features: Features) -> list[Instances]:
        detections = super()._detect(images, features)
        rows = self.roi_heads.embed_boxes(features, [d.pred_boxes for d in detections])
        for detection, own in zip(detections, rows, strict=True):
            detection.pred_embeddings = _join(detection.pred_embeddings, own)
        return detections

    def _embed(
        self, images: ImageList, features: Features, boxes: list[Boxes]
    ) -> list[torch.Tensor]:
        cells = super()._embed(images, features, boxes)
        regions = self.roi_heads.embed_boxes(features, boxes)
        return [_join(*both) for both in zip(cells, regions, strict=True)]


def _join(cells: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """(R, 2 D) rows of unit length, whose cosines are the means of those of their halves."""
    return torch.cat([cells, regions], dim=1) / math.sqrt(2)


def _region_config(cfg: CfgNode) -> CfgNode:
    """The config with the re-ID settings of the regions in place of those of the cells."""
    own = cfg.clone()
    own.defrost()
    for key, value in cfg.MODEL.ALIGNPS.REGION_REID.items():
        own.MODEL.REID_HEAD[key] = value
    return own
