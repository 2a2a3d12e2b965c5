# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Classes and boxes of regions, as in Faster R-CNN."""

from __future__ import annotations

import torch
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Instances

from kdps.layers.precision import in_float32
from kdps.utils.distributed import rank_share


class DetectionOutputLayers(FastRCNNOutputLayers):
    """Detectron2's layers in float32, with losses averaged over the regions of all ranks.

    An image with few proposals gives fewer regions than are asked for.
    """

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`detectron2.modeling.roi_heads.FastRCNNOutputLayers.forward`."""
        return in_float32(super().forward, x)

    def losses(
        self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: list[Instances]
    ) -> dict[str, torch.Tensor]:
        """See :meth:`detectron2.modeling.roi_heads.FastRCNNOutputLayers.losses`."""
        logits = predictions[0]
        share = rank_share(len(logits), logits.device)
        losses = super().losses(predictions, proposals)
        return {name: loss * share for name, loss in losses.items()}
