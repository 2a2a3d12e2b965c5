# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""One linear layer from region features to embeddings."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import nn
from torch.nn import functional as F

from kdps.modeling.reid_heads.build import REID_HEADS_REGISTRY


@REID_HEADS_REGISTRY.register()
class LinearEmbedding(nn.Module):
    """The embedding of "Joint Detection and Identification Feature Learning for Person Search"
    (Xiao et al., CVPR 2017), section 3.1: a projection to the unit sphere.
    """

    scores_people = False

    @configurable
    def __init__(self, *, in_channels: int, embedding_dim: int) -> None:
        """
        Args:
            in_channels: of the region feature "res5".
            embedding_dim: size D of an embedding.
        """
        super().__init__()
        self.projector = nn.Linear(in_channels, embedding_dim)
        nn.init.normal_(self.projector.weight, std=0.01)
        nn.init.zeros_(self.projector.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        return {
            "in_channels": input_shape["res5"].channels,
            "embedding_dim": cfg.MODEL.REID_HEAD.EMBEDDING_DIM,
        }

    def forward(self, features: dict[str, torch.Tensor]) -> tuple[torch.Tensor, None]:
        """
        Args:
            features: (R, C) tensors by name.

        Returns:
            (R, D) embeddings of unit length; None in place of person logits.
        """
        # Lengths of half-precision vectors lose too much.
        return F.normalize(self.projector(features["res5"]).float()), None
