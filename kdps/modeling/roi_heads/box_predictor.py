# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Classes and boxes of regions, as in Faster R-CNN."""

from __future__ import annotations

import torch
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Instances

from kdps.utils.distributed import rank_share


class DetectionOutputLayers(FastRCNNOutputLayers):
    """Detectron2's layers with losses averaged over the regions of all ranks, in float32.

    An image with few proposals gives fewer regions than are asked for. In half precision sure
    detections would have one score.
    """

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`detectron2.modeling.roi_heads.FastRCNNOutputLayers.forward`."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())

    def losses(
        self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: list[Instances]
    ) -> dict[str, torch.Tensor]:
        """See :meth:`detectron2.modeling.roi_heads.FastRCNNOutputLayers.losses`."""
        logits = predictions[0]
        share = rank_share(len(logits), logits.device)
        losses = super().losses(predictions, proposals)
        return {name: loss * share for name, loss in losses.items()}
