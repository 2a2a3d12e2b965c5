# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Models. Importing this package registers them with Detectron2."""

from kdps.modeling.anchor_generator import CaffeAnchorGenerator, RoundedAnchorGenerator
from kdps.modeling.backbone import (
    build_aligned_backbone,
    build_mobilenet_v2,
    build_person_search_resnet,
    build_post_norm_resnet,
    build_timm_classifier,
    build_tiny_resnet,
    register_head_stage,
)
from kdps.modeling.inclusive_rpn import InclusiveRPN
from kdps.modeling.meta_arch import AlignPS, CropReID, PersonSearchRCNN, ROIAlignPS
from kdps.modeling.proposal_generator import PersonSearchRPN
from kdps.modeling.reid_heads import (
    REID_HEADS_REGISTRY,
    FusedEmbedding,
    LinearEmbedding,
    NormAwareEmbedding,
    PixelNormAwareEmbedding,
    build_reid_head,
)
from kdps.modeling.roi_heads import (
    CoatROIHeads,
    DiverseKDROIHeads,
    NormAwareROIHeads,
    OIMROIHeads,
    PixelNormAwareROIHeads,
    SeqNeXtROIHeads,
    SeqROIHeads,
)

__all__ = [
    "REID_HEADS_REGISTRY",
    "AlignPS",
    "CaffeAnchorGenerator",
    "CoatROIHeads",
    "CropReID",
    "DiverseKDROIHeads",
    "FusedEmbedding",
    "InclusiveRPN",
    "LinearEmbedding",
    "NormAwareEmbedding",
    "NormAwareROIHeads",
    "OIMROIHeads",
    "PersonSearchRCNN",
    "PersonSearchRPN",
    "PixelNormAwareEmbedding",
    "PixelNormAwareROIHeads",
    "ROIAlignPS",
    "RoundedAnchorGenerator",
    "SeqNeXtROIHeads",
    "SeqROIHeads",
    "build_aligned_backbone",
    "build_mobilenet_v2",
    "build_person_search_resnet",
    "build_post_norm_resnet",
    "build_reid_head",
    "build_timm_classifier",
    "build_tiny_resnet",
    "register_head_stage",
]
