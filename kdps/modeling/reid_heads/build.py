# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Registry of the modules that turn region features into embeddings."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry
from torch import nn

from kdps.errors import KdpsError

REID_HEADS_REGISTRY = Registry("REID_HEADS")
REID_HEADS_REGISTRY.__doc__ = """
Registry for embedding heads.

The registered object is called with `obj(cfg, input_shape)`, where `input_shape` maps the name of a
region feature to its ShapeSpec. It is a module whose forward takes these features, each (R, C), and
returns the embeddings, (R, D) rows of unit length, and the person logits, (R,). One that only
embeds returns None in place of the logits and has an attribute `scores_people` that is False; it
serves OIMROIHeads and SeqNeXtROIHeads, which classify by themselves. One with an attribute
`per_cell` that is True serves PixelNormAwareROIHeads: it takes maps, each (R, C, h, w), and returns
logits of their cells.
"""


def build_reid_head(
    cfg: CfgNode,
    input_shape: dict[str, ShapeSpec],
    *,
    per_cell: bool = False,
    scores_people: bool = True,
) -> nn.Module:
    """The embedding head that ``MODEL.REID_HEAD.NAME`` names.

    Raises:
        KdpsError: it is not of the kind that ``per_cell`` and ``scores_people`` ask for.
    """
    name = cfg.MODEL.REID_HEAD.NAME
    head = REID_HEADS_REGISTRY.get(name)(cfg, input_shape)
    if getattr(head, "per_cell", False) != per_cell:
        wanted = "the cells of regions" if per_cell else "whole regions"
        raise KdpsError(
            f"MODEL.REID_HEAD.NAME: {cfg.MODEL.ROI_HEADS.NAME} needs a head for {wanted}, which "
            f"{name!r} is not"
        )
    scores = getattr(head, "scores_people", True)
    if scores_people and not scores:
        raise KdpsError(
            f"MODEL.REID_HEAD.NAME: {name!r} gives no person logits, as {cfg.MODEL.ROI_HEADS.NAME} "
            "needs them; NormAwareEmbedding does"
        )
    if scores and not scores_people:
        # Layers that nothing trains would stop a training in several processes.
        raise KdpsError(
            f"MODEL.REID_HEAD.NAME: {name!r} gives person logits, for which "
            f"{cfg.MODEL.ROI_HEADS.NAME} has no use; FusedEmbedding and LinearEmbedding do not"
        )
    return head
