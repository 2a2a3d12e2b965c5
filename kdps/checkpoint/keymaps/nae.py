# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""NAE, https://github.com/dichen-cd/NAE4PS (not its pixel-wise variant NAE+)."""

from __future__ import annotations

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
