# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""OIM-Net, https://github.com/serend1p1ty/person_search (branch master).

Its modules are numbered in the order of Caffe's layers, the activations among them.
"""

from __future__ import annotations

from kdps.checkpoint.keymaps.resnet import PARAMETERS, STATISTICS
from kdps.checkpoint.rules import Rule

# Number of the first convolution of each stage, its module there and here, and its blocks. The
# trunk has three blocks of res4; the head the others and res5.
_STAGES = (
    (4, "backbone", "backbone.res2", 3, True),
    (35, "backbone", "backbone.res3", 4, True),
    (76, "backbone", "backbone.res4", 3, True),
    (107, "head", "roi_heads.box_head.res4", 3, False),
    (137, "head", "roi_heads.box_head.res5", 3, True),
)


def _convolution(module: str, number: int, new: str) -> Rule:
    return Rule(rf"{module}\.SpatialConvolution_{number}\.{PARAMETERS}", rf"{new}.\1")


def _norm(module: str, number: int, new: str) -> list[Rule]:
    rules = [Rule(rf"{module}\.BN_{number}\.{STATISTICS}", rf"{new}.\1")]
    count = rf"{module}\.BN_{number}\.num_batches_tracked"
    if module == "backbone":
        return [
            *rules,
            Rule(count, None, reason="norms of the trunk are frozen, they count nothing"),
        ]
    return [*rules, Rule(count, f"{new}.num_batches_tracked")]


def _block(module: str, first: int, new: str, projects: bool) -> tuple[list[Rule], int]:
    """Rules of one block, and the number of the next one's first convolution."""
    rules = [
        _convolution(module, first, f"{new}.conv1"),
        *_norm(module, first + 1, f"{new}.conv1.norm"),
        _convolution(module, first + 3, f"{new}.conv2"),
        *_norm(module, first + 4, f"{new}.conv2.norm"),
        _convolution(module, first + 6, f"{new}.conv3"),
    ]
    if projects:
        rules.append(_convolution(module, first + 7, f"{new}.shortcut"))
    last = first + 8 + projects
    return [*rules, *_norm(module, last, f"{new}.norm")], last + 2


def _resnet_rules() -> list[Rule]:
    stem = "backbone.stem.conv1"
    rules = [_convolution("backbone", 0, stem), *_norm("backbone", 1, f"{stem}.norm")]
    for number, module, new, blocks, projects in _STAGES:
        for block in range(blocks):
            own, number = _block(module, number, f"{new}.{block}", projects and block == 0)
            rules += own
    return rules


_RPN_RULES = [
    Rule(rf"rpn\.rpn_conv\.{PARAMETERS}", r"proposal_generator.rpn_head.conv.\1"),
    # Nine anchors, first their scores as background, then as foreground, which go through a
    # softmax: the sigmoid of the difference.
    Rule(
        rf"rpn\.rpn_cls_score\.{PARAMETERS}",
        r"proposal_generator.rpn_head.objectness_logits.\1",
        rows=tuple(range(9, 18)),
        minus=tuple(range(9)),
    ),
    Rule(rf"rpn\.rpn_bbox_pred\.{PARAMETERS}", r"proposal_generator.rpn_head.anchor_deltas.\1"),
]

_HEAD_RULES = [
    # There class 0 is the background, and its box is neither trained nor used.
    Rule(rf"cls_score\.{PARAMETERS}", r"roi_heads.box_predictor.cls_score.\1", rows=(1, 0)),
    Rule(rf"bbox_pred\.{PARAMETERS}", r"roi_heads.box_predictor.bbox_pred.\1", rows=(4, 5, 6, 7)),
    Rule(rf"feature\.{PARAMETERS}", r"roi_heads.embedding_head.projector.\1"),
    Rule(r"labeled_matching_layer\.lookup_table", "roi_heads.oim.memory.table"),
    Rule(r"unlabeled_matching_layer\.queue", "roi_heads.oim.memory.queue"),
    Rule(r"unlabeled_matching_layer\.tail", "roi_heads.oim.memory.pointer"),
]

OIM_RULES = [*_resnet_rules(), *_RPN_RULES, *_HEAD_RULES]

# The ImageNet weights that it starts from. The public code passes over what it has no module for.
OIM_RESNET_RULES = [
    *_resnet_rules(),
    Rule(".*", None, reason="no part of the detector", optional=True),
]
