# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Norm-aware embedding of each cell of a region (NAE+)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from kdps.modeling.reid_heads.build import REID_HEADS_REGISTRY
from kdps.modeling.reid_heads.norm_aware import NormAwareEmbedding


@REID_HEADS_REGISTRY.register()
class PixelNormAwareEmbedding(NormAwareEmbedding):
    """The length of a cell's vector says whether the cell shows the person.

    "Norm-Aware Embedding for Efficient Person Search" (Chen et al., CVPR 2020), section 3.3. The
    layers are those of NAE, applied to each cell, so that weights of one serve the other.
    """

    per_cell = True

    def forward(self, features: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            features: (R, C, H, W) maps by name; projections of larger maps are resized to the
                last one's (h, w).

        Returns:
            (R, D) embeddings, the mean over the cells of directions weighted by the sigmoid of
            their logits, of length 1 or less; (R, h, w) logits of the cells.
        """
        size = list(features.values())[-1].shape[2:]
        maps = [self._project(name, features[name], size) for name in self.projectors]
        # Lengths and directions of half-precision vectors lose too much.
        vectors = torch.cat(maps, dim=1).float()
        norms = vectors.norm(dim=1)
        logits = self.rescaler(norms.reshape(-1, 1)).reshape(norms.shape)
        weighted = F.normalize(vectors, dim=1) * logits.sigmoid()[:, None]
        return weighted.mean(dim=(2, 3)), logits

    def _project(self, name: str, x: torch.Tensor, size: torch.Size) -> torch.Tensor:
        regions, _, height, width = x.shape
        projected = self.projectors[name](x.permute(0, 2, 3, 1).flatten(0, 2))
        dim = projected.shape[1]
        projected = projected.reshape(regions, height, width, dim).permute(0, 3, 1, 2)
        if (height, width) == tuple(size):
            return projected
        return F.interpolate(projected, size, mode="bilinear", align_corners=False)
