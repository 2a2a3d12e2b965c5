# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""SeqNet, https://github.com/serend1p1ty/SeqNet."""

from __future__ import annotations

from kdps.checkpoint.keymaps.resnet import NORM, stage_rules, stem_rules
from kdps.checkpoint.rules import Rule

# There class 0 is the background and class 1 the person; here the person comes first.
_CLASSES = (1, 0)
# Four regression outputs per class; those of the background are neither trained nor used.
_PERSON_BOX = (4, 5, 6, 7)

_BACKBONE = [
    *stem_rules("backbone", "backbone"),
    *stage_rules("backbone.layer1", "backbone.res2"),
    *stage_rules("backbone.layer2", "backbone.res3"),
    *stage_rules("backbone.layer3", "backbone.res4"),
]

_RPN = [
    # torchvision 0.13 renamed conv to conv.0.0.
    Rule(
        r"rpn\.head\.conv(?:\.0\.0)?\.(weight|bias)",
        r"proposal_generator.rpn_head.conv.\1",
    ),
    Rule(
        r"rpn\.head\.cls_logits\.(weight|bias)",
        r"proposal_generator.rpn_head.objectness_logits.\1",
    ),
    Rule(
        r"rpn\.head\.bbox_pred\.(weight|bias)",
        r"proposal_generator.rpn_head.anchor_deltas.\1",
    ),
]

_FIRST_STAGE = [
    *stage_rules("roi_heads.box_head.layer4", "roi_heads.box_head.res5"),
    Rule(
        r"roi_heads\.faster_rcnn_predictor\.cls_score\.(weight|bias)",
        r"roi_heads.box_predictor.cls_score.\1",
        rows=_CLASSES,
    ),
    Rule(
        r"roi_heads\.faster_rcnn_predictor\.bbox_pred\.(weight|bias)",
        r"roi_heads.box_predictor.bbox_pred.\1",
        rows=_PERSON_BOX,
    ),
]

_SECOND_STAGE = [
    *stage_rules("roi_heads.reid_head.layer4", "roi_heads.reid_box_head.res5"),
    Rule(
        r"roi_heads\.box_predictor\.bbox_pred\.1\.num_batches_tracked",
        r"roi_heads.reid_predictor.bbox_pred.1.num_batches_tracked",
    ),
    Rule(
        rf"roi_heads\.box_predictor\.bbox_pred\.([01])\.{NORM}",
        r"roi_heads.reid_predictor.bbox_pred.\1.\2",
        rows=_PERSON_BOX,
    ),
    Rule(
        rf"roi_heads\.embedding_head\.projectors\.feat_(res[45])\.([01])\.{NORM}",
        r"roi_heads.reid_predictor.embedding_head.projectors.\1.\2.\3",
    ),
    Rule(
        rf"roi_heads\.embedding_head\.rescaler\.{NORM}",
        r"roi_heads.reid_predictor.embedding_head.rescaler.\1",
    ),
    Rule(r"roi_heads\.reid_loss\.lut", r"roi_heads.reid_predictor.oim.memory.table"),
    Rule(r"roi_heads\.reid_loss\.cq", r"roi_heads.reid_predictor.oim.memory.queue"),
]

SEQNET_RULES = [*_BACKBONE, *_RPN, *_FIRST_STAGE, *_SECOND_STAGE]
