# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Registry of the modules that turn region features into embeddings."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry
from torch import nn

REID_HEADS_REGISTRY = Registry("REID_HEADS")
REID_HEADS_REGISTRY.__doc__ = """
Registry for embedding heads.

The registered object is called with `obj(cfg, input_shape)`, where `input_shape` maps the name of a
region feature to its ShapeSpec. It is a module whose forward takes these features, each (R, C), and
returns the embeddings, (R, D) rows of unit length, and the person logits, (R,). One that only
embeds returns None in place of the logits and has an attribute `scores_people` that is False; it
serves OIMROIHeads, which classifies by itself.
"""


def build_reid_head(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """The embedding head that ``MODEL.REID_HEAD.NAME`` names."""
    return REID_HEADS_REGISTRY.get(cfg.MODEL.REID_HEAD.NAME)(cfg, input_shape)
