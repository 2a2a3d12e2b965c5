# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""AlignPS, AlignPS+ and ROI-AlignPS, https://github.com/daodaofr/AlignPS."""

from __future__ import annotations

import re

from kdps.checkpoint.keymaps.resnet import NORM, PARAMETERS, STATISTICS, stage_rules
from kdps.checkpoint.rules import Rule

# Anchors of the RPN are ordered by ratio first there, here by size: 5 sizes, 3 ratios.
_ANCHORS = tuple(5 * ratio + size for size in range(5) for ratio in range(3))
_COUNTS_NOTHING = "norms that are frozen count nothing"


def _backbone_rules() -> list[Rule]:
    stem = "backbone.bottom_up.stem.conv1"
    rules = [
        Rule(r"backbone\..*\.num_batches_tracked", None, reason=_COUNTS_NOTHING),
        Rule(r"backbone\.conv1\.weight", f"{stem}.weight"),
        Rule(rf"backbone\.bn1\.{STATISTICS}", rf"{stem}.norm.\1"),
    ]
    for stage in (1, 2, 3, 4):
        old, new = f"backbone.layer{stage}", f"backbone.bottom_up.res{stage + 1}"
        rules += stage_rules(old, new, STATISTICS)
        # Those of AlignPS+.
        offset = rf"{re.escape(old)}\.(\d+)\.conv2\.conv_offset\.{PARAMETERS}"
        rules.append(Rule(offset, rf"{new}.\1.conv2.offset.\2", optional=True))
    return rules


def _neck_rules() -> list[Rule]:
    rules = []
    for old, new in (("lateral_convs", "laterals"), ("fpn_convs", "outputs")):
        conv = rf"neck\.{old}\.([012])"
        rules.append(Rule(rf"{conv}\.weight", rf"backbone.{new}.\1.weight"))
        rules.append(Rule(rf"{conv}\.conv_offset\.{PARAMETERS}", rf"backbone.{new}.\1.offset.\2"))
    # The first three outputs are in the list before them.
    for i in (0, 1):
        old = rf"neck\.fpn_convs\.{i + 3}\.conv\.{PARAMETERS}"
        rules.append(Rule(old, rf"backbone.extra.{i}.\1"))
    return rules


def _head_rules() -> list[Rule]:
    rules = []
    for old, new in (("cls_convs", "cls_subnet"), ("reg_convs", "bbox_subnet")):
        for i in range(4):
            # A convolution, a norm and an activation each.
            conv, layer = rf"bbox_head\.{old}\.{i}", f"head.{new}"
            rules.append(Rule(rf"{conv}\.conv\.{PARAMETERS}", rf"{layer}.{3 * i}.\1"))
            rules.append(Rule(rf"{conv}\.gn\.{PARAMETERS}", rf"{layer}.{3 * i + 1}.\1"))
        offset = rf"bbox_head\.{old}\.3\.conv\.conv_offset\.{PARAMETERS}"
        rules.append(Rule(offset, rf"head.{new}.9.offset.\1"))
    for old, new in (("cls", "cls_score"), ("reg", "bbox_pred"), ("centerness", "ctrness")):
        rules.append(Rule(rf"bbox_head\.conv_{old}\.{PARAMETERS}", rf"head.{new}.\1"))
    return [
        *rules,
        Rule(r"bbox_head\.scales\.0\.scale", "head.box_scale"),
        Rule(r"bbox_head\.scales\.[1-4]\.scale", None, reason="of maps on which nobody is found"),
    ]


def _region_rules() -> list[Rule]:
    """RPN and NAE's head of ROI-AlignPS."""
    rules = [
        Rule(rf"rpn_head\.rpn_conv\.{PARAMETERS}", r"proposal_generator.rpn_head.conv.\1"),
        Rule(
            rf"rpn_head\.rpn_cls\.{PARAMETERS}",
            r"proposal_generator.rpn_head.objectness_logits.\1",
            rows=_ANCHORS,
        ),
        Rule(
            rf"rpn_head\.rpn_reg\.{PARAMETERS}",
            r"proposal_generator.rpn_head.anchor_deltas.\1",
            rows=tuple(4 * anchor + i for anchor in _ANCHORS for i in range(4)),
        ),
        Rule(r"roi_head\.shared_head\..*\.num_batches_tracked", None, reason=_COUNTS_NOTHING),
        *stage_rules("roi_head.shared_head.layer4", "roi_heads.box_head.res5", STATISTICS),
    ]
    old, new = r"roi_head\.bbox_head", "roi_heads.reid_predictor"
    embedding = f"{new}.embedding_head"
    # A linear layer and a norm each.
    for layer, parts in enumerate((PARAMETERS, NORM)):
        for number, feature in enumerate(("res4", "res5")):
            projector = rf"{old}\.embedding_head\.projectors\.{number}\.{layer}\.{parts}"
            rules.append(Rule(projector, rf"{embedding}.projectors.{feature}.{layer}.\1"))
        rules.append(Rule(rf"{old}\.fc_reg\.{layer}\.{parts}", rf"{new}.bbox_pred.{layer}.\1"))
    return [
        *rules,
        Rule(rf"{old}\.embedding_head\.rescaler\.{NORM}", rf"{embedding}.rescaler.\1"),
        Rule(rf"{old}\.fc_cls\.{PARAMETERS}", None, reason="a classifier that is not used"),
        Rule(rf"{old}\.loss_oim\.lut", f"{new}.oim.memory.table"),
        Rule(rf"{old}\.loss_oim\.cq", f"{new}.oim.memory.queue"),
        Rule(
            r"(loss_oim|(un)?labeled_matching_layer)\..*",
            None,
            reason="memories that nothing is matched with",
        ),
        Rule(r"mi_estimator\..*", None, reason="of a training loss that kdps does not have"),
    ]


ALIGNPS_RULES = [
    *_backbone_rules(),
    *_neck_rules(),
    *_head_rules(),
    Rule(r"bbox_head\.labeled_matching_layer\.lookup_table", "oim.memory.table"),
    Rule(r"bbox_head\.unlabeled_matching_layer\.queue", "oim.memory.queue"),
    Rule(r"bbox_head\.unlabeled_matching_layer\.tail", "oim.memory.pointer"),
]

ROI_ALIGNPS_RULES = [*ALIGNPS_RULES, *_region_rules()]
