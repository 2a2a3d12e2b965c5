# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from kdps.modeling.backbone.aligned_aggregation import (
    AlignedFeatureAggregation,
    build_aligned_backbone,
)
from kdps.modeling.backbone.head_stage import StageBuilder, build_head_stage, register_head_stage
from kdps.modeling.backbone.mobilenet_v2 import build_mobilenet_v2
from kdps.modeling.backbone.post_norm_resnet import (
    build_post_norm_res4_rest,
    build_post_norm_res5,
    build_post_norm_resnet,
)
from kdps.modeling.backbone.resnet import (
    build_person_search_resnet,
    build_person_search_resnet_fpn,
)
from kdps.modeling.backbone.timm_classifier import build_timm_classifier
from kdps.modeling.backbone.tiny_resnet import build_tiny_head_stage, build_tiny_resnet

__all__ = [
    "AlignedFeatureAggregation",
    "build_aligned_backbone",
    "StageBuilder",
    "build_head_stage",
    "build_mobilenet_v2",
    "build_person_search_resnet",
    "build_person_search_resnet_fpn",
    "build_post_norm_res4_rest",
    "build_post_norm_res5",
    "build_post_norm_resnet",
    "build_timm_classifier",
    "build_tiny_head_stage",
    "build_tiny_resnet",
    "register_head_stage",
]
