# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Which part of a config the detector of its method goes by."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY


def detector_node(cfg: CfgNode) -> CfgNode:
    """The node whose SCORE_THRESH_TEST decides which detections a model returns.

    Two-stage methods compare it with the score, AlignPS with the probability of a person, which is
    never less. All of AlignPS's kind go by MODEL.ALIGNPS, others by MODEL.ROI_HEADS.
    """
    # Here, not above: registering the models is for those who run one.
    from kdps.modeling import AlignPS

    architecture = dict(META_ARCH_REGISTRY).get(cfg.MODEL.META_ARCHITECTURE)
    if isinstance(architecture, type) and issubclass(architecture, AlignPS):
        return cfg.MODEL.ALIGNPS
    return cfg.MODEL.ROI_HEADS
