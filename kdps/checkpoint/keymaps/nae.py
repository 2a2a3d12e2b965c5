# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""NAE and its pixel-wise variant NAE+, https://github.com/dichen-cd/NAE4PS."""

from __future__ import annotations

from dataclasses import replace

from kdps.checkpoint.keymaps.resnet import stage_rules
from kdps.checkpoint.keymaps.torchvision_rcnn import BACKBONE_RULES, NORM_AWARE_RULES, RPN_RULES
from kdps.checkpoint.rules import Rule

NAE_RULES = [
    *BACKBONE_RULES,
    *RPN_RULES,
    *stage_rules("roi_heads.box_head.layer4", "roi_heads.box_head.res5"),
    Rule(
        r"roi_heads\.box_predictor\.cls_score\.(weight|bias)",
        None,
        reason="a classifier that NAE makes and does not use",
    ),
    *NORM_AWARE_RULES,
]

# All names are the same; what embeds is a 1 x 1 convolution there.
NAE_PLUS_RULES = [
    replace(rule, ndim=4, as_matrix=True) if rule.ndim else rule for rule in NAE_RULES
]
