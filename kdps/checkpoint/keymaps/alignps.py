# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""AlignPS, AlignPS+ and ROI-AlignPS, https://github.com/daodaofr/AlignPS."""

from __future__ import annotations

from kdps.checkpoint.rules import Rule

_PARAMETERS = "(weight|bias)"
_STATISTICS = "(weight|bias|running_mean|running_var)"
_COUNTS_NOTHING = "norms that are frozen count nothing"


def _frozen_stage_rules(old: str, new: str) -> list[Rule]:
    """A stage of residual blocks with frozen norms; ``old`` matches, ``new`` is a module name."""
    return [
        Rule(rf"{old}\.(\d+)\.conv(\d)\.weight", rf"{new}.\1.conv\2.weight"),
        Rule(rf"{old}\.(\d+)\.bn(\d)\.{_STATISTICS}", rf"{new}.\1.conv\2.norm.\3"),
        Rule(rf"{old}\.(\d+)\.downsample\.0\.weight", rf"{new}.\1.shortcut.weight"),
        Rule(rf"{old}\.(\d+)\.downsample\.1\.{_STATISTICS}", rf"{new}.\1.shortcut.norm.\2"),
    ]


def _backbone_rules() -> list[Rule]:
    stem = "backbone.bottom_up.stem.conv1"
    rules = [
        Rule(r"backbone\..*\.num_batches_tracked", None, reason=_COUNTS_NOTHING),
        Rule(r"backbone\.conv1\.weight", f"{stem}.weight"),
        Rule(rf"backbone\.bn1\.{_STATISTICS}", rf"{stem}.norm.\1"),
    ]
    for stage in (1, 2, 3, 4):
        old, new = rf"backbone\.layer{stage}", f"backbone.bottom_up.res{stage + 1}"
        rules += _frozen_stage_rules(old, new)
        # Those of AlignPS+.
        offset = rf"{old}\.(\d+)\.conv2\.conv_offset\.{_PARAMETERS}"
        rules.append(Rule(offset, rf"{new}.\1.conv2.offset.\2", optional=True))
    return rules


def _neck_rules() -> list[Rule]:
    rules = []
    for old, new in (("lateral_convs", "laterals"), ("fpn_convs", "outputs")):
        conv = rf"neck\.{old}\.([012])"
        rules.append(Rule(rf"{conv}\.weight", rf"backbone.{new}.\1.weight"))
        rules.append(Rule(rf"{conv}\.conv_offset\.{_PARAMETERS}", rf"backbone.{new}.\1.offset.\2"))
    # The first three outputs are in the list before them.
    for i in (0, 1):
        old = rf"neck\.fpn_convs\.{i + 3}\.conv\.{_PARAMETERS}"
        rules.append(Rule(old, rf"backbone.extra.{i}.\1"))
    return rules


def _head_rules() -> list[Rule]:
    rules = []
    for old, new in (("cls_convs", "cls_subnet"), ("reg_convs", "bbox_subnet")):
        for i in range(4):
            # A convolution, a norm and an activation each.
            conv, layer = rf"bbox_head\.{old}\.{i}", f"head.{new}"
            rules.append(Rule(rf"{conv}\.conv\.{_PARAMETERS}", rf"{layer}.{3 * i}.\1"))
            rules.append(Rule(rf"{conv}\.gn\.{_PARAMETERS}", rf"{layer}.{3 * i + 1}.\1"))
        offset = rf"bbox_head\.{old}\.3\.conv\.conv_offset\.{_PARAMETERS}"
        rules.append(Rule(offset, rf"head.{new}.9.offset.\1"))
    for old, new in (("cls", "cls_score"), ("reg", "bbox_pred"), ("centerness", "ctrness")):
        rules.append(Rule(rf"bbox_head\.conv_{old}\.{_PARAMETERS}", rf"head.{new}.\1"))
    return [
        *rules,
        Rule(r"bbox_head\.scales\.0\.scale", "head.box_scale"),
        Rule(r"bbox_head\.scales\.[1-4]\.scale", None, reason="of maps on which nobody is found"),
    ]


def _memory_rules(old: str) -> list[Rule]:
    return [
        Rule(rf"{old}labeled_matching_layer\.lookup_table", "oim.memory.table"),
        Rule(rf"{old}unlabeled_matching_layer\.queue", "oim.memory.queue"),
        Rule(rf"{old}unlabeled_matching_layer\.tail", "oim.memory.pointer"),
    ]


ALIGNPS_RULES = [
    *_backbone_rules(),
    *_neck_rules(),
    *_head_rules(),
    *_memory_rules(r"bbox_head\."),
]
