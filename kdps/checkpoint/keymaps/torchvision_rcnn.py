# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What methods built on torchvision's detectors (SeqNet, NAE, COAT) share."""

from __future__ import annotations

from kdps.checkpoint.keymaps.resnet import NORM, PARAMETERS, STATISTICS, stage_rules, stem_rules
from kdps.checkpoint.rules import Rule

# There class 0 is the background and class 1 the person; here the person comes first.
CLASSES = (1, 0)
# Four regression outputs per class; those of the background are neither trained nor used.
PERSON_BOX = (4, 5, 6, 7)

BACKBONE_RULES = [
    *stem_rules("backbone", "backbone"),
    *stage_rules("backbone.layer1", "backbone.res2"),
    *stage_rules("backbone.layer2", "backbone.res3"),
    *stage_rules("backbone.layer3", "backbone.res4"),
]

RPN_RULES = [
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

# The norm-aware layers, which have the same names in NAE and in SeqNet.
NORM_AWARE_RULES = [
    Rule(
        r"roi_heads\.box_predictor\.bbox_pred\.1\.num_batches_tracked",
        r"roi_heads.reid_predictor.bbox_pred.1.num_batches_tracked",
    ),
    Rule(
        rf"roi_heads\.box_predictor\.bbox_pred\.0\.{PARAMETERS}",
        r"roi_heads.reid_predictor.bbox_pred.0.\1",
        rows=PERSON_BOX,
    ),
    Rule(
        rf"roi_heads\.box_predictor\.bbox_pred\.1\.{STATISTICS}",
        r"roi_heads.reid_predictor.bbox_pred.1.\1",
        rows=PERSON_BOX,
    ),
    # Those of NAE+, which has the same names, are convolutions.
    Rule(
        r"roi_heads\.embedding_head\.projectors\.feat_(res[45])\.0\.weight",
        r"roi_heads.reid_predictor.embedding_head.projectors.\1.0.weight",
        ndim=2,
    ),
    Rule(
        r"roi_heads\.embedding_head\.projectors\.feat_(res[45])\.0\.bias",
        r"roi_heads.reid_predictor.embedding_head.projectors.\1.0.bias",
    ),
    Rule(
        rf"roi_heads\.embedding_head\.projectors\.feat_(res[45])\.1\.{NORM}",
        r"roi_heads.reid_predictor.embedding_head.projectors.\1.1.\2",
    ),
    Rule(
        rf"roi_heads\.embedding_head\.rescaler\.{NORM}",
        r"roi_heads.reid_predictor.embedding_head.rescaler.\1",
    ),
    Rule(r"roi_heads\.reid_loss\.lut", r"roi_heads.reid_predictor.oim.memory.table"),
    Rule(r"roi_heads\.reid_loss\.cq", r"roi_heads.reid_predictor.oim.memory.queue"),
]
