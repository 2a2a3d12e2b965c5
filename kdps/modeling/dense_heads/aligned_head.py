# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The detection head of AlignPS: that of FCOS, with a deformable last layer."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.fcos import FCOSHead
from torch import nn

from kdps.layers.deformable_conv import DeformableConv
from kdps.layers.precision import in_float32


class AlignedHead(FCOSHead):
    """Detectron2's FCOS head, changed in three points as "Anchor-Free Person Search" (Yan et al.,
    CVPR 2021) has it.

    The last convolution of each branch is deformable; a learnt factor scales the box deltas; and
    boxes and centreness are predicted on the finest map only, as no other has people.
    """

    @configurable
    def __init__(self, *, input_shape: list[ShapeSpec], deformable: bool = True, **kwargs) -> None:
        """
        Args:
            input_shape: of the maps, the finest first.
            deformable: False leaves the last convolutions plain.
            kwargs: see :class:`detectron2.modeling.meta_arch.fcos.FCOSHead`.
        """
        super().__init__(input_shape=input_shape, **kwargs)
        for branch in (self.cls_subnet, self.bbox_subnet) if deformable else ():
            last = max(i for i, layer in enumerate(branch) if isinstance(layer, nn.Conv2d))
            branch[last] = DeformableConv(branch[last], modulated=True)
        self.box_scale = nn.Parameter(torch.ones(()))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict:
        node = cfg.MODEL.ALIGNPS
        return {
            "input_shape": input_shape,
            "deformable": node.DEFORMABLE,
            "num_classes": 1,
            "conv_dims": [input_shape[0].channels] * node.NUM_CONVS,
            "norm": node.NORM,
            "prior_prob": node.PRIOR_PROB,
        }

    def forward(
        self, features: list[torch.Tensor]
    ) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """
        Args:
            features: (N, C, H_i, W_i) maps, the finest first; coarser ones may be left out.

        Returns:
            (N, 1, H_i, W_i) person logits of each map; (N, 4, H_0, W_0) distances from the point of
            each cell of the finest to the left, top, right and bottom of its box, in strides and
            below zero where they mean zero; (N, 1, H_0, W_0) logits of the centreness.
        """
        logits = [in_float32(self.cls_score, self.cls_subnet(own)) for own in features]
        boxes = self.bbox_subnet(features[0])
        distances = self.box_scale * in_float32(self.bbox_pred, boxes)
        return logits, distances, in_float32(self.ctrness, boxes)
