# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""COAT, https://github.com/Kitware/COAT."""

from __future__ import annotations

from kdps.checkpoint.keymaps.resnet import NORM, PARAMETERS, STATISTICS
from kdps.checkpoint.keymaps.torchvision_rcnn import (
    BACKBONE_RULES,
    CLASSES,
    PERSON_BOX,
    RPN_RULES,
)
from kdps.checkpoint.rules import Rule

# A stage's box head is there under a second name, as are the boxes of the first re-ID stage and the
# only encoder layer: both names hold the same tensor.
_FIRST_HEAD = r"roi_heads\.box_head(?:_1st)?"
_SECOND_BOXES = r"roi_heads\.box_predictor(?:_2nd)?"
_LAYER = r"(?:transblock|transformer\.0)"


def _transformer_rules(old: str, new: str) -> list[Rule]:
    """The transformers of a stage; ``old`` matches and ``new`` is the name of its box head."""
    rules = [
        Rule(rf"{old}\.conv1\.weight", f"{new}.reduce.weight"),
        Rule(rf"{old}\.conv2\.weight", f"{new}.expand.weight"),
        Rule(
            rf"{old}\.transformer_encoder\.output_linear\.0\.{PARAMETERS}",
            None,
            reason="a layer that the published configs leave out",
        ),
    ]
    for number in (0, 1):
        theirs = rf"{old}\.transformer_encoder\.blocks\.scale{number + 1}\.0"
        ours = f"{new}.transformers.{number}"
        attention, layer = rf"{theirs}\.{_LAYER}\.attention", f"{ours}.encoder.0"
        rules += [
            Rule(rf"{theirs}\.patch2vec\.{PARAMETERS}", rf"{ours}.to_tokens.\1"),
            Rule(
                rf"{theirs}\.vec2patch\.embedding\.{PARAMETERS}",
                rf"{ours}.from_tokens.linear.\1",
            ),
            Rule(rf"{theirs}\.{_LAYER}\.norm([12])\.{PARAMETERS}", rf"{layer}.norm\1.\2"),
            Rule(
                rf"{attention}\.(query|key|value)_embedding\.{PARAMETERS}",
                rf"{layer}.attention.\1.\2",
            ),
            Rule(rf"{attention}\.output_linear\.{PARAMETERS}", rf"{layer}.attention.output.\1"),
            Rule(rf"{theirs}\.{_LAYER}\.ffn\.conv\.0\.{PARAMETERS}", rf"{layer}.ffn.0.\1"),
            # A dropout has a number there.
            Rule(rf"{theirs}\.{_LAYER}\.ffn\.conv\.3\.{PARAMETERS}", rf"{layer}.ffn.2.\1"),
        ]
    return rules


def _reid_stage_rules(stage: str, boxes: str, number: int) -> list[Rule]:
    """A re-ID stage.

    Args:
        stage: how names end there.
        boxes: matches the name of its box predictor.
        number: its number here, from 0.
    """
    head, embedding = rf"roi_heads\.box_head_{stage}", rf"roi_heads\.embedding_head_{stage}"
    new_head = f"roi_heads.reid_box_heads.{number}"
    new = f"roi_heads.reid_predictors.{number}"
    rules = [
        *_transformer_rules(head, new_head),
        Rule(rf"{head}\.conv0\.weight", f"{new_head}.bypass.weight"),
        Rule(
            rf"{boxes}\.bbox_pred\.1\.num_batches_tracked",
            f"{new}.bbox_pred.1.num_batches_tracked",
        ),
        Rule(rf"{boxes}\.bbox_pred\.0\.{PARAMETERS}", rf"{new}.bbox_pred.0.\1", rows=PERSON_BOX),
        Rule(rf"{boxes}\.bbox_pred\.1\.{STATISTICS}", rf"{new}.bbox_pred.1.\1", rows=PERSON_BOX),
        Rule(rf"{embedding}\.rescaler\.{NORM}", rf"{new}.embedding_head.rescaler.\1"),
        Rule(rf"roi_heads\.reid_loss_{stage}\.lut", f"{new}.oim.memory.table"),
        Rule(rf"roi_heads\.reid_loss_{stage}\.cq", f"{new}.oim.memory.queue"),
    ]
    for theirs, ours in (("before_trans", "res4"), ("after_trans", "res5")):
        for layer, parts in enumerate((PARAMETERS, NORM)):
            old = rf"{embedding}\.projectors\.{theirs}\.{layer}\.{parts}"
            rules.append(Rule(old, rf"{new}.embedding_head.projectors.{ours}.{layer}.\1"))
    return rules


COAT_RULES = [
    *BACKBONE_RULES,
    *RPN_RULES,
    *_transformer_rules(_FIRST_HEAD, "roi_heads.box_head"),
    Rule(
        rf"{_FIRST_HEAD}\.conv0\.weight",
        None,
        reason="a layer that the first stage leaves out",
    ),
    Rule(
        rf"roi_heads\.box_predictor_1st\.cls_score\.{PARAMETERS}",
        r"roi_heads.box_predictor.cls_score.\1",
        rows=CLASSES,
    ),
    Rule(
        rf"roi_heads\.box_predictor_1st\.bbox_pred\.{PARAMETERS}",
        r"roi_heads.box_predictor.bbox_pred.\1",
        rows=PERSON_BOX,
    ),
    *_reid_stage_rules("2nd", _SECOND_BOXES, 0),
    *_reid_stage_rules("3rd", r"roi_heads\.box_predictor_3rd", 1),
]
