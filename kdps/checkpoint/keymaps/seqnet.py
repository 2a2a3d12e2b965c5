# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""SeqNet, https://github.com/serend1p1ty/SeqNet."""

from __future__ import annotations

from kdps.checkpoint.keymaps.resnet import stage_rules
from kdps.checkpoint.keymaps.torchvision_rcnn import (
    BACKBONE_RULES,
    CLASSES,
    NORM_AWARE_RULES,
    PERSON_BOX,
    RPN_RULES,
)
from kdps.checkpoint.rules import Rule

_FIRST_STAGE = [
    *stage_rules("roi_heads.box_head.layer4", "roi_heads.box_head.res5"),
    Rule(
        r"roi_heads\.faster_rcnn_predictor\.cls_score\.(weight|bias)",
        r"roi_heads.box_predictor.cls_score.\1",
        rows=CLASSES,
    ),
    Rule(
        r"roi_heads\.faster_rcnn_predictor\.bbox_pred\.(weight|bias)",
        r"roi_heads.box_predictor.bbox_pred.\1",
        rows=PERSON_BOX,
    ),
]

_SECOND_STAGE = [
    *stage_rules("roi_heads.reid_head.layer4", "roi_heads.reid_box_head.res5"),
    *NORM_AWARE_RULES,
]

SEQNET_RULES = [*BACKBONE_RULES, *RPN_RULES, *_FIRST_STAGE, *_SECOND_STAGE]
