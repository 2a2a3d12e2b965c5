# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from kdps.modeling.reid_heads.build import REID_HEADS_REGISTRY, build_reid_head
from kdps.modeling.reid_heads.fused import FusedEmbedding
from kdps.modeling.reid_heads.linear import LinearEmbedding
from kdps.modeling.reid_heads.norm_aware import NormAwareEmbedding
from kdps.modeling.reid_heads.pixel_norm_aware import PixelNormAwareEmbedding

__all__ = [
    "REID_HEADS_REGISTRY",
    "FusedEmbedding",
    "LinearEmbedding",
    "NormAwareEmbedding",
    "PixelNormAwareEmbedding",
    "build_reid_head",
]
