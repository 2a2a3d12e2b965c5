# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""NAE's heads: one stage, where the length of the embedding is the detection score."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY
from detectron2.structures import Boxes, Instances
from torch import nn

from kdps.modeling.losses import OIMLoss
from kdps.modeling.roi_heads.distillable import places_of
from kdps.modeling.roi_heads.norm_aware import NormAwareOutputLayers, NormAwarePredictions
from kdps.modeling.roi_heads.person_search_heads import PersonSearchROIHeads
from kdps.structures.distill_outputs import PersonOutputs, Places


@ROI_HEADS_REGISTRY.register()
class NormAwareROIHeads(PersonSearchROIHeads):
    """ "Norm-Aware Embedding for Efficient Person Search" (Chen et al., CVPR 2020).

    There is no classifier: the score of a region is the sigmoid of its normalised embedding length
    (equations 3 and 4), and the same region features give its box and its embedding.
    """

    output_layers = NormAwareOutputLayers
    stages = ("reid",)

    @configurable
    def __init__(
        self, *, box_head: nn.Module, reid_predictor: NormAwareOutputLayers, **kwargs
    ) -> None:
        """
        Args:
            box_head: region features.
            reid_predictor: boxes, person logits and embeddings.
            kwargs: see :class:`PersonSearchROIHeads`.
        """
        super().__init__(**kwargs)
        self.box_head = box_head
        self.reid_predictor = reid_predictor

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        ret = super().from_config(cfg, input_shape)
        ret["box_head"] = cls._build_box_head(cfg, input_shape)
        ret["reid_predictor"] = cls.output_layers(cfg, ret["box_head"].output_shape)
        return ret

    def _losses(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances],
    ) -> dict[str, torch.Tensor]:
        proposals = self.label_and_sample_proposals(proposals, targets)
        places = places_of(proposals)
        outputs = self._predict(features, places.boxes)
        self._tell("reid", self.reid_predictor.describe(outputs, places), proposals)
        return self.reid_predictor.losses(outputs, proposals)

    def _detect(
        self, features: dict[str, torch.Tensor], proposals: list[Instances]
    ) -> list[Instances]:
        outputs = self._predict(features, [p.proposal_boxes for p in proposals])
        counts = [p.proposal_boxes.tensor.shape[0] for p in proposals]
        scores = self._scores(outputs, counts)
        embeddings = outputs.embeddings.split(counts)
        boxes = self.reid_predictor.predict_boxes(outputs, proposals)
        return self._choose(proposals, boxes, scores, embeddings)

    def _scores(self, outputs: NormAwarePredictions, counts: list[int]) -> list[torch.Tensor]:
        """The scores of the regions of each image, of which there are so many."""
        return list(outputs.person_logits.sigmoid().split(counts))

    def _embed(self, features: dict[str, torch.Tensor], boxes: list[Boxes]) -> torch.Tensor:
        return self._predict(features, boxes).embeddings

    def _describe_stage(
        self, stage: str, features: dict[str, torch.Tensor], places: Places
    ) -> PersonOutputs:
        return self.reid_predictor.describe(self._predict(features, places.boxes), places)

    def memories(self) -> dict[str, OIMLoss]:
        return {"reid": self.reid_predictor.oim}

    def _predict(
        self, features: dict[str, torch.Tensor], boxes: list[Boxes]
    ) -> NormAwarePredictions:
        return self.reid_predictor(self._describe_regions(self.box_head, features, boxes))
