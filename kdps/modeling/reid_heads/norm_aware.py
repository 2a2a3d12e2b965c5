# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Norm-aware embedding (NAE)."""

from __future__ import annotations

import torch
from detectron2.config import configurable
from torch.nn import functional as F

from kdps.layers.row_batch_norm import RowBatchNorm
from kdps.modeling.reid_heads.build import REID_HEADS_REGISTRY
from kdps.modeling.reid_heads.fused import FusedEmbedding


@REID_HEADS_REGISTRY.register()
class NormAwareEmbedding(FusedEmbedding):
    """The direction of a vector says who it is, its length whether it is a person.

    "Norm-Aware Embedding for Efficient Person Search" (Chen et al., CVPR 2020), section 3.2.
    """

    scores_people = True

    @configurable
    def __init__(self, **kwargs) -> None:
        """
        Args:
            kwargs: see :class:`FusedEmbedding`.
        """
        super().__init__(**kwargs)
        self.rescaler = RowBatchNorm(1)

    def forward(self, features: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            features: (R, C) tensors by name.

        Returns:
            (R, D) embeddings of unit length and (R,) person logits (the normalised length).
        """
        vectors = self._vectors(features)
        norms = vectors.norm(dim=1, keepdim=True)
        return F.normalize(vectors), self.rescaler(norms).squeeze(1)
