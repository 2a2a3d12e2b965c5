# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Checks of the values of a config that name a part of the model or a way to read images."""

from __future__ import annotations

from collections.abc import Collection

from detectron2.config import CfgNode
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
)
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY

from kdps.data.dataset_mapper import RESIZES
from kdps.errors import KdpsError

# The orders of channels that both the mapper and the predictor make from an image.
IMAGE_FORMATS = ("BGR", "RGB")


def check_names(cfg: CfgNode) -> None:
    """Check that what the config names exists, and that its parts go together.

    Raises:
        KdpsError: a name is unknown; the message names its key and the known values.
    """
    # Here, not above: registering the models is for those who check a config, not for those who
    # only import its defaults.
    from kdps.modeling import REID_HEADS_REGISTRY, PersonSearchRCNN

    model = cfg.MODEL
    registered = (
        ("MODEL.META_ARCHITECTURE", model.META_ARCHITECTURE, META_ARCH_REGISTRY),
        ("MODEL.BACKBONE.NAME", model.BACKBONE.NAME, BACKBONE_REGISTRY),
        ("MODEL.ANCHOR_GENERATOR.NAME", model.ANCHOR_GENERATOR.NAME, ANCHOR_GENERATOR_REGISTRY),
        ("MODEL.ROI_HEADS.NAME", model.ROI_HEADS.NAME, ROI_HEADS_REGISTRY),
        ("MODEL.REID_HEAD.NAME", model.REID_HEAD.NAME, REID_HEADS_REGISTRY),
    )
    for key, name, registry in registered:
        _check_known(key, name, [known for known, _ in registry])
    if model.ROI_BOX_HEAD.NAME:
        known = [name for name, _ in ROI_BOX_HEAD_REGISTRY]
        _check_known("MODEL.ROI_BOX_HEAD.NAME", model.ROI_BOX_HEAD.NAME, known)
    # Detectron2's word for proposals that come with the data set; it is in no registry.
    proposers = [*(name for name, _ in PROPOSAL_GENERATOR_REGISTRY), "PrecomputedProposals"]
    _check_known("MODEL.PROPOSAL_GENERATOR.NAME", model.PROPOSAL_GENERATOR.NAME, proposers)
    _check_known("INPUT.FORMAT", cfg.INPUT.FORMAT, IMAGE_FORMATS)
    _check_known("INPUT.RESIZE", cfg.INPUT.RESIZE, RESIZES)
    embeds = hasattr(ROI_HEADS_REGISTRY.get(model.ROI_HEADS.NAME), "embed_boxes")
    architecture = META_ARCH_REGISTRY.get(model.META_ARCHITECTURE)
    if isinstance(architecture, type) and issubclass(architecture, PersonSearchRCNN) and not embeds:
        raise KdpsError(
            f"MODEL.ROI_HEADS.NAME: {model.ROI_HEADS.NAME!r} only detects; "
            f"{model.META_ARCHITECTURE} needs heads that embed people (embed_boxes)"
        )


def _check_known(key: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise KdpsError(f"{key}: unknown value {value!r}; known: {', '.join(sorted(known))}")
