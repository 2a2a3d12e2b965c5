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
# Of Detectron2's get_norm.
NORMS = (
    *("", "BN", "SyncBN", "FrozenBN", "GN", "LN"),
    *("nnSyncBN", "naiveSyncBN", "naiveSyncBN_N"),
)
# Of Detectron2's ROIPooler, those that pool upright boxes.
POOLER_TYPES = ("ROIAlign", "ROIAlignV2", "ROIPool")
# Backbones whose outputs are MODEL.RESNETS.OUT_FEATURES.
RESNETS = (
    *("build_person_search_resnet", "build_post_norm_resnet"),
    *("build_resnet_backbone", "build_tiny_resnet"),
)
# Backbones whose one output is called "res4".
TRUNKS = ("build_mobilenet_v2", "build_timm_classifier")
# Backbones with a map of another size for each of MODEL.FPN.IN_FEATURES, and one more.
PYRAMIDS = ("build_person_search_resnet_fpn", "build_resnet_fpn_backbone")


def check_names(cfg: CfgNode) -> None:
    """Check that what the config names exists, and that its parts go together.

    Raises:
        KdpsError: a name is unknown; the message names its key and the known values.
    """
    # Here, not above: registering the models is for those who check a config, not for those who
    # only import its defaults.
    from kdps.modeling import REID_HEADS_REGISTRY, AlignPS, CropReID, PersonSearchRCNN, ROIAlignPS

    model = cfg.MODEL
    registered = (
        ("MODEL.META_ARCHITECTURE", model.META_ARCHITECTURE, META_ARCH_REGISTRY),
        ("MODEL.BACKBONE.NAME", model.BACKBONE.NAME, BACKBONE_REGISTRY),
        ("MODEL.ANCHOR_GENERATOR.NAME", model.ANCHOR_GENERATOR.NAME, ANCHOR_GENERATOR_REGISTRY),
        ("MODEL.ROI_HEADS.NAME", model.ROI_HEADS.NAME, ROI_HEADS_REGISTRY),
        ("MODEL.REID_HEAD.NAME", model.REID_HEAD.NAME, REID_HEADS_REGISTRY),
    )
    for key, name, registry in registered:
        check_known(key, name, [known for known, _ in registry])
    check_known("INPUT.FORMAT", cfg.INPUT.FORMAT, IMAGE_FORMATS)
    check_known("INPUT.RESIZE", cfg.INPUT.RESIZE, RESIZES)
    architecture = META_ARCH_REGISTRY.get(model.META_ARCHITECTURE)
    if not isinstance(architecture, type):
        return
    if issubclass(architecture, (PersonSearchRCNN, ROIAlignPS)):
        _check_rcnn(model)
    if issubclass(architecture, AlignPS):
        _check_alignps(model)
    if issubclass(architecture, CropReID):
        _check_crop_reid(model)


def _check_crop_reid(model: CfgNode) -> None:
    """The parts that ``CropReID`` is made of, beside those that it checks when it is built."""
    _check_box_head(model)
    if len(model.ROI_HEADS.IN_FEATURES) != 1:
        raise KdpsError(
            "MODEL.ROI_HEADS.IN_FEATURES: must be the one map that the head of CropReID takes, not "
            f"{list(model.ROI_HEADS.IN_FEATURES)}"
        )


def _check_box_head(model: CfgNode) -> None:
    """The box head, and the norms of it and of the backbone."""
    from kdps.modeling.roi_heads.box_head import REGION_POOLS

    heads = [known for known, _ in ROI_BOX_HEAD_REGISTRY]
    check_known("MODEL.ROI_BOX_HEAD.NAME", model.ROI_BOX_HEAD.NAME, heads)
    check_known("MODEL.ROI_BOX_HEAD.REGION_POOL", model.ROI_BOX_HEAD.REGION_POOL, REGION_POOLS)
    check_known("MODEL.ROI_BOX_HEAD.NORM", model.ROI_BOX_HEAD.NORM, NORMS)
    check_known("MODEL.RESNETS.NORM", model.RESNETS.NORM, NORMS)


def _check_alignps(model: CfgNode) -> None:
    """The parts that ``AlignPS`` is made of, beside those that it checks when it is built."""
    check_known("MODEL.AFA.BOTTOM_UP", model.AFA.BOTTOM_UP, [n for n, _ in BACKBONE_REGISTRY])
    check_known("MODEL.RESNETS.NORM", model.RESNETS.NORM, NORMS)
    # Detectron2's FCOS head gives batch norms turns, one for each of its maps; this head sees other
    # maps in training than at test time.
    alike = [norm for norm in NORMS if norm in ("", "GN", "LN")]
    check_known("MODEL.ALIGNPS.NORM", model.ALIGNPS.NORM, alike)


def _check_rcnn(model: CfgNode) -> None:
    """The parts that ``PersonSearchRCNN`` is made of, and the regions of ``ROIAlignPS``."""
    _check_box_head(model)
    generators = [known for known, _ in PROPOSAL_GENERATOR_REGISTRY]
    check_known("MODEL.PROPOSAL_GENERATOR.NAME", model.PROPOSAL_GENERATOR.NAME, generators)
    check_known("MODEL.ROI_BOX_HEAD.POOLER_TYPE", model.ROI_BOX_HEAD.POOLER_TYPE, POOLER_TYPES)
    num_classes = model.ROI_HEADS.NUM_CLASSES
    if num_classes != 1:
        raise KdpsError(f"MODEL.ROI_HEADS.NUM_CLASSES: must be 1, for persons, not {num_classes}")
    in_features = model.ROI_HEADS.IN_FEATURES
    if model.BACKBONE.NAME in TRUNKS and list(in_features) != ["res4"]:
        raise KdpsError(
            f"MODEL.ROI_HEADS.IN_FEATURES: must be ['res4'], what {model.BACKBONE.NAME} makes"
        )
    if model.BACKBONE.NAME not in PYRAMIDS and len(in_features) != 1:
        raise KdpsError(
            f"MODEL.ROI_HEADS.IN_FEATURES: must be one map of {model.BACKBONE.NAME}, not "
            f"{list(in_features)}; regions are pooled from several of a pyramid only"
        )
    if model.BACKBONE.NAME in RESNETS and model.RESNETS.DEFORM_ON_PER_STAGE[3]:
        raise KdpsError(
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE: the fourth stage, which works on pooled regions, "
            "stays plain; set it to False"
        )
    unknown = [f for f in in_features if f not in model.RESNETS.OUT_FEATURES]
    if unknown and model.BACKBONE.NAME in RESNETS:
        raise KdpsError(
            f"MODEL.ROI_HEADS.IN_FEATURES: {unknown[0]!r} is none of MODEL.RESNETS.OUT_FEATURES "
            f"({', '.join(model.RESNETS.OUT_FEATURES)})"
        )
    if not hasattr(ROI_HEADS_REGISTRY.get(model.ROI_HEADS.NAME), "embed_boxes"):
        raise KdpsError(
            f"MODEL.ROI_HEADS.NAME: {model.ROI_HEADS.NAME!r} only detects; "
            f"{model.META_ARCHITECTURE} needs heads that embed people (embed_boxes)"
        )


def check_known(key: str, value: str, known: Collection[str]) -> None:
    """Raise a KdpsError unless ``value`` is one of the known ones."""
    if value not in known:
        raise KdpsError(f"{key}: unknown value {value!r}; known: {', '.join(sorted(known))}")
