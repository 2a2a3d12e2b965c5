# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from kdps.modeling.backbone.post_norm_resnet import (
    build_post_norm_res4_rest,
    build_post_norm_res5,
    build_post_norm_resnet,
)
from kdps.modeling.backbone.resnet import build_person_search_resnet, build_res5_stage
from kdps.modeling.backbone.tiny_resnet import build_tiny_head_stage, build_tiny_resnet

__all__ = [
    "build_person_search_resnet",
    "build_post_norm_res4_rest",
    "build_post_norm_res5",
    "build_post_norm_resnet",
    "build_res5_stage",
    "build_tiny_head_stage",
    "build_tiny_resnet",
]
