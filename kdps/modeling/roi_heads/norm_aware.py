# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The head of NAE and of SeqNet's second stage: refined boxes, person logits and embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances
from torch import nn
from torch.nn import functional as F

from kdps.layers.precision import in_float32
from kdps.layers.row_batch_norm import RowBatchNorm
from kdps.modeling.losses import IdentitySoftmaxLoss, OIMLoss, build_oim_loss
from kdps.modeling.reid_heads import build_reid_head
from kdps.modeling.roi_heads.distillable import matched_pids
from kdps.modeling.roi_heads.person_search_heads import matched_boxes
from kdps.structures.distill_outputs import PersonOutputs, Places
from kdps.utils.distributed import rank_share


@dataclass
class NormAwarePredictions:
    """What the head says about R regions of all images.

    Attributes:
        deltas: (R, 4) box deltas.
        person_logits: (R,) logits of being a person; of each cell, (R, h, w), in NAE+.
        embeddings: (R, D) rows of unit length, of at most that in NAE+.
    """

    deltas: torch.Tensor
    person_logits: torch.Tensor
    embeddings: torch.Tensor


class NormAwareOutputLayers(nn.Module):
    """Box regression with a batch norm, embedding and person logit, and their losses.

    "Norm-Aware Embedding for Efficient Person Search" (Chen et al., CVPR 2020); the same layers end
    SeqNet's second stage ("Sequential End-to-end Network for Efficient Person Search", Li and Miao,
    AAAI 2021). Their code regresses a second, unused box for the background; here it is left out.
    """

    # Whether embeddings and logits are made of the cells of a region.
    per_cell = False
    # Whether the embedding head gives the person logits.
    scores_by_length = True

    @configurable
    def __init__(
        self,
        *,
        input_shape: dict[str, ShapeSpec],
        embedding_head: nn.Module,
        oim: OIMLoss,
        box2box_transform: Box2BoxTransform,
        smooth_l1_beta: float,
        loss_weights: dict[str, float],
        id_loss: IdentitySoftmaxLoss | None = None,
    ) -> None:
        """
        Args:
            input_shape: the region features; boxes are regressed from "res5".
            embedding_head: see ``REID_HEADS_REGISTRY``.
            oim: the re-ID loss and its memory.
            box2box_transform: coder of the boxes.
            smooth_l1_beta: where the regression loss turns from L2 to L1.
            loss_weights: weights by loss name; 1 where a name is missing.
            id_loss: a classification of identities, beside OIM (COAT).
        """
        super().__init__()
        self.bbox_pred = nn.Sequential(nn.Linear(input_shape["res5"].channels, 4), RowBatchNorm(4))
        for layer in self.bbox_pred:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        self.embedding_head = embedding_head
        self.oim = oim
        self.id_loss = id_loss
        self.box2box_transform = box2box_transform
        self.smooth_l1_beta = smooth_l1_beta
        self.loss_weights = loss_weights

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        reid = cfg.MODEL.REID_HEAD
        id_loss = None
        if reid.ID_LOSS_WEIGHT > 0 and reid.NUM_PIDS > 0:
            id_loss = IdentitySoftmaxLoss(reid.NUM_PIDS, reid.EMBEDDING_DIM)
        return {
            "input_shape": input_shape,
            "embedding_head": build_reid_head(
                cfg, input_shape, per_cell=cls.per_cell, scores_people=cls.scores_by_length
            ),
            "oim": build_oim_loss(cfg),
            "box2box_transform": Box2BoxTransform(weights=cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS),
            "smooth_l1_beta": cfg.MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA,
            "loss_weights": {
                "loss_nae_cls": reid.CLS_LOSS_WEIGHT,
                "loss_nae_box_reg": reid.BBOX_REG_LOSS_WEIGHT,
                "loss_oim": reid.LOSS_WEIGHT,
                "loss_id": reid.ID_LOSS_WEIGHT,
            },
            "id_loss": id_loss,
        }

    def forward(self, features: dict[str, torch.Tensor]) -> NormAwarePredictions:
        """
        Args:
            features: (R, C) region features by name, as a box head returns them.
        """
        embeddings, logits = self.embedding_head(features)
        return NormAwarePredictions(
            in_float32(self.bbox_pred, features["res5"]), logits, embeddings
        )

    def losses(
        self, predictions: NormAwarePredictions, proposals: list[Instances]
    ) -> dict[str, torch.Tensor]:
        """Losses of one step; this moves the memory of OIM (see :class:`OIMLoss`).

        Args:
            predictions: for the regions of all images.
            proposals: sampled proposals with ``proposal_boxes``, ``gt_classes`` (0 person, 1
                background) and, in images with people, ``gt_boxes`` and ``gt_pids``.

        Returns:
            "loss_nae_cls" (binary cross entropy, mean over regions), "loss_nae_box_reg" (smooth L1,
            sum over persons divided by the number of regions), "loss_oim" and, with an ``id_loss``,
            "loss_id". All are means over the rows of all ranks.
        """
        is_person = cat([p.gt_classes for p in proposals]) == 0
        boxes = cat([p.proposal_boxes.tensor for p in proposals])[is_person]
        # A proposal in the background carries the box and the identity of some person, too: only
        # the rows of is_person may be used.
        gt_boxes = matched_boxes(proposals)[is_person]
        pids = matched_pids(proposals)[is_person]
        embeddings = predictions.embeddings[is_person]
        targets = self.box2box_transform.get_deltas(boxes, gt_boxes)
        deltas = predictions.deltas[is_person].float()
        box_loss = F.smooth_l1_loss(deltas, targets, beta=self.smooth_l1_beta, reduction="sum")
        labels = self._person_labels(predictions, proposals, is_person)
        cls_loss = F.binary_cross_entropy_with_logits(
            predictions.person_logits, labels, reduction="sum"
        )
        # Regions have equally many labels.
        share = rank_share(len(is_person), is_person.device)
        losses = {
            # Without any region a mean would be NaN.
            "loss_nae_cls": cls_loss / max(labels.numel(), 1) * share,
            "loss_nae_box_reg": box_loss / max(len(is_person), 1) * share,
            "loss_oim": self.oim(embeddings, pids),
        }
        if self.id_loss is not None:
            losses["loss_id"] = self.id_loss(embeddings, pids)
        return {name: loss * self.loss_weights.get(name, 1.0) for name, loss in losses.items()}

    def _person_labels(
        self, predictions: NormAwarePredictions, proposals: list[Instances], is_person: torch.Tensor
    ) -> torch.Tensor:
        """What the person logits should say, of their shape and type."""
        return is_person.to(predictions.person_logits.dtype)

    def describe(self, predictions: NormAwarePredictions, places: Places) -> PersonOutputs:
        """Predictions for regions at these places, as a distillation sees them."""
        regions = Boxes.cat(places.boxes).tensor
        boxes = self.box2box_transform.apply_deltas(predictions.deltas.float(), regions)
        return PersonOutputs(
            places, predictions.person_logits.float(), boxes, predictions.embeddings
        )

    def predict_boxes(
        self, predictions: NormAwarePredictions, proposals: list[Instances]
    ) -> list[torch.Tensor]:
        """Decoded boxes, (R_i, 4) XYXY pixels of the network input for each image, not clipped."""
        boxes = cat([p.proposal_boxes.tensor for p in proposals])
        decoded = self.box2box_transform.apply_deltas(predictions.deltas, boxes)
        return list(decoded.split([p.proposal_boxes.tensor.shape[0] for p in proposals]))
