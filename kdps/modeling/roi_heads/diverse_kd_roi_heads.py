# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The student of Diverse Knowledge Distillation: detection and re-ID heads side by side."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY
from detectron2.structures import Boxes, Instances
from torch import nn
from torch.nn import functional as F

from kdps.modeling.losses import IdentitySoftmaxLoss, batch_hard_triplet_loss
from kdps.modeling.roi_heads.box_predictor import DetectionOutputLayers
from kdps.modeling.roi_heads.staged_heads import StagedROIHeads
from kdps.structures.distill_outputs import PersonOutputs, Places


@ROI_HEADS_REGISTRY.register()
class DiverseKDROIHeads(StagedROIHeads):
    """ "Diverse Knowledge Distillation for End-to-End Person Search" (Zhang et al., AAAI 2021).

    Both heads pool from one map and have a stage of their own. The detection head is that of Faster
    R-CNN; the re-ID head trains on the annotated boxes, by the classification of identities behind
    a BNNeck and the batch-hard triplet loss. At test time the final boxes are embedded.

    The paper's drawing shows the heads and what they give; that the re-ID head trains on annotated
    boxes, and its losses, are ours.
    """

    stages = ("detector", "reid")
    detecting_stages = ("detector",)

    @configurable
    def __init__(
        self,
        *,
        reid_box_head: nn.Module,
        projector: nn.Module,
        identities: IdentitySoftmaxLoss,
        loss_weights: Mapping[str, float],
        triplet_margin: float = 0.3,
        **kwargs,
    ) -> None:
        """
        Args:
            reid_box_head: region features of the re-ID head.
            projector: from its feature "res5" to the size of an embedding.
            identities: BNNeck and classifier.
            loss_weights: of "loss_id" and "loss_triplet"; 0 leaves the latter out.
            triplet_margin: see :func:`batch_hard_triplet_loss`.
            kwargs: see :class:`StagedROIHeads`.
        """
        super().__init__(**kwargs)
        self.reid_box_head = reid_box_head
        self.projector = projector
        self.identities = identities
        self.loss_weights = dict(loss_weights)
        self.triplet_margin = triplet_margin

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        ret = super().from_config(cfg, input_shape)
        reid = cfg.MODEL.REID_HEAD
        box_head = cls._build_box_head(cfg, input_shape)
        reid_box_head = cls._build_box_head(cfg, input_shape)
        channels, dim = reid_box_head.output_shape["res5"].channels, reid.EMBEDDING_DIM
        ret.update(
            box_head=box_head,
            box_predictor=DetectionOutputLayers(cfg, box_head.output_shape["res5"]),
            reid_box_head=reid_box_head,
            projector=nn.Identity() if channels == dim else nn.Linear(channels, dim, bias=False),
            identities=IdentitySoftmaxLoss(
                max(reid.NUM_PIDS, 1), dim, reid.LABEL_SMOOTHING, embeds=True
            ),
            loss_weights={
                "loss_id": reid.LOSS_WEIGHT,
                "loss_triplet": reid.TRIPLET_LOSS_WEIGHT,
            },
            triplet_margin=reid.TRIPLET_MARGIN,
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
        places = Places([own.gt_boxes for own in targets])
        pids = cat([own.gt_pids for own in targets])
        vectors, necks = self._embedded(features, places.boxes)
        with torch.autocast(pids.device.type, enabled=False):
            reid = {"loss_id": self.identities.loss(necks, pids)}
            if self.loss_weights["loss_triplet"] > 0:
                reid["loss_triplet"] = batch_hard_triplet_loss(vectors, pids, self.triplet_margin)
        self._tell_people("reid", self._answer(necks, places), pids)
        return {**losses, **{k: self.loss_weights[k] * loss for k, loss in reid.items()}}

    def _detect(
        self, features: dict[str, torch.Tensor], proposals: list[Instances]
    ) -> list[Instances]:
        detections = self._detect_first(features, proposals)
        embeddings = self.embed_boxes(features, [own.pred_boxes for own in detections])
        for own, rows in zip(detections, embeddings, strict=True):
            own.pred_embeddings = rows
        return detections

    def _embed(self, features: dict[str, torch.Tensor], boxes: list[Boxes]) -> torch.Tensor:
        return F.normalize(self._embedded(features, boxes)[1])

    def _describe_stage(
        self, stage: str, features: dict[str, torch.Tensor], places: Places
    ) -> PersonOutputs:
        if stage == "detector":
            return self._describe_first(features, places)
        return self._answer(self._embedded(features, places.boxes)[1], places)

    def embedding_dims(self) -> dict[str, int]:
        """Size of an embedding of each stage that embeds."""
        return {"reid": self.identities.classifier.in_features}

    @property
    def num_pids(self) -> int:
        """Identities that the classifier tells apart."""
        return self.identities.classifier.out_features

    def _embedded(
        self, features: dict[str, torch.Tensor], boxes: list[Boxes]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(R, D) float32 features before and behind the neck."""
        described = self._describe_regions(self.reid_box_head, features, boxes)
        vectors = self.projector(described["res5"]).float()
        return vectors, self.identities.neck(vectors)

    def _answer(self, necks: torch.Tensor, places: Places) -> PersonOutputs:
        weights = self.identities.classifier.weight
        with torch.autocast(weights.device.type, enabled=False):
            return PersonOutputs(
                places,
                person_logits=None,
                boxes=None,
                embeddings=F.normalize(necks),
                identity_logits=self.identities.classifier(necks),
                known=torch.ones(len(weights), dtype=torch.bool, device=weights.device),
                table=F.normalize(weights).detach(),
            )
