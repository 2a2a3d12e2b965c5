# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Embeddings that region features of several stages share."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import nn
from torch.nn import functional as F

from kdps.layers.row_batch_norm import RowBatchNorm
from kdps.modeling.reid_heads.build import REID_HEADS_REGISTRY


@REID_HEADS_REGISTRY.register()
class FusedEmbedding(nn.Module):
    """Each region feature is projected by a linear layer and a batch norm to its share.

    That of NAE without the score ("Norm-Aware Embedding for Efficient Person Search", Chen et al.,
    CVPR 2020, section 3.2), as SeqNeXt has it.
    """

    scores_people = False

    @configurable
    def __init__(self, *, input_shape: dict[str, ShapeSpec], embedding_dim: int) -> None:
        """
        Args:
            input_shape: the region features and their channels.
            embedding_dim: size D of an embedding, shared out evenly among the features; the last
                ones get what is left over.
        """
        super().__init__()
        share, left_over = divmod(embedding_dim, len(input_shape))
        self.projectors = nn.ModuleDict()
        for i, (name, shape) in enumerate(input_shape.items()):
            dim = share + (i >= len(input_shape) - left_over)
            projector = nn.Sequential(nn.Linear(shape.channels, dim), RowBatchNorm(dim))
            for layer in projector:
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
            self.projectors[name] = projector

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        return {"input_shape": input_shape, "embedding_dim": cfg.MODEL.REID_HEAD.EMBEDDING_DIM}

    def forward(
        self, features: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            features: (R, C) tensors by name.

        Returns:
            (R, D) embeddings of unit length; None in place of person logits.
        """
        return F.normalize(self._vectors(features)), None

    def _vectors(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """(R, D) projections of all features side by side."""
        vectors = torch.cat([p(features[name]) for name, p in self.projectors.items()], dim=1)
        # Lengths and directions of half-precision vectors lose too much.
        return vectors.float()
