# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Region proposal network with the loss of torchvision's detectors."""

from __future__ import annotations

import torch
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN
from detectron2.structures import Boxes

from kdps.utils.distributed import rank_share


@PROPOSAL_GENERATOR_REGISTRY.register()
class PersonSearchRPN(RPN):
    """Detectron2's RPN with losses averaged over the anchors really sampled, on all ranks.

    Detectron2 divides by the wanted number instead, which is more when an image has few anchors.
    """

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[torch.Tensor],
        gt_labels: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        gt_boxes: list[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """See :meth:`detectron2.modeling.proposal_generator.RPN.losses`."""
        losses = super().losses(
            anchors, pred_objectness_logits, gt_labels, pred_anchor_deltas, gt_boxes
        )
        wanted = self.batch_size_per_image * len(gt_labels)
        sampled = sum(int((labels >= 0).sum()) for labels in gt_labels)
        share = rank_share(sampled, pred_objectness_logits[0].device)
        return {name: loss * (wanted / max(sampled, 1)) * share for name, loss in losses.items()}
