# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Checkpoints with the names of published ones, for tests."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from kdps.checkpoint.convert import METHODS

Shapes = dict[str, tuple[int, ...]]


def make_published(method: str) -> dict[str, torch.Tensor]:
    """The entries of a published checkpoint of "seqnet", "nae", "nae+", "oim", "coat",
    "alignps", "alignps-plus" or "roi-alignps".

    They are small tensors of distinct numbers; one tensor under two names has the same numbers.
    """
    makers = {
        "seqnet": _seqnet,
        "nae": _nae,
        "nae+": _nae_plus,
        "oim": _oim,
        "coat": _coat,
        "alignps": _alignps,
        "alignps-plus": _alignps_plus,
        "roi-alignps": _roi_alignps,
    }
    shapes = makers[method]()
    generator = torch.Generator().manual_seed(0)
    published = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    if method == "coat":
        published.update(_coat_aliases(published))
    return published


def as_published(
    own: Mapping[str, torch.Tensor], method: str, variant: str | None = None
) -> dict[str, torch.Tensor]:
    """The weights of a model of kdps as the public code would have saved them.

    What kdps has no use for is zero.

    Args:
        own: names and tensors here.
        method: one of ``METHODS``.
        variant: whose names :func:`make_published` is asked for; None: the method's.
    """
    theirs = {}
    for name in make_published(variant or method):
        rule = next(r for r in METHODS[method].rules if re.fullmatch(r.pattern, name))
        if rule.name is None:
            theirs[name] = torch.zeros(2)
            continue
        tensor = own[re.fullmatch(rule.pattern, name).expand(rule.name)]
        if rule.rows is not None:
            rows = max(*rule.rows, *(rule.minus or ())) + 1
            whole = tensor.new_zeros(rows, *tensor.shape[1:])
            whole[list(rule.rows)] = tensor
            tensor = whole
        if rule.as_matrix:
            tensor = tensor[:, :, None, None]
        theirs[name] = tensor
    return theirs


def _norm(prefix: str, size: int) -> Shapes:
    names = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{prefix}.{n}": (size,) for n in names}, f"{prefix}.num_batches_tracked": ()}


def _linear(prefix: str, *shape: int) -> Shapes:
    return {f"{prefix}.weight": shape, f"{prefix}.bias": shape[:1]}


def _stage(prefix: str, layer: str, blocks: int) -> Shapes:
    """A stage of torchvision's bottlenecks; channel numbers do not matter here."""
    entries: Shapes = {}
    for block in range(blocks):
        for i in (1, 2, 3):
            entries[f"{prefix}.{layer}.{block}.conv{i}.weight"] = (2, 2, 1, 1)
            entries.update(_norm(f"{prefix}.{layer}.{block}.bn{i}", 2))
    entries[f"{prefix}.{layer}.0.downsample.0.weight"] = (2, 2, 1, 1)
    return {**entries, **_norm(f"{prefix}.{layer}.0.downsample.1", 2)}


def _proposals() -> Shapes:
    """Backbone and RPN, which NAE, SeqNet and COAT share."""
    entries = {"backbone.conv1.weight": (2, 3, 7, 7), **_norm("backbone.bn1", 2)}
    for i, blocks in enumerate((3, 4, 6), start=1):
        entries.update(_stage("backbone", f"layer{i}", blocks))
    return {
        **entries,
        **_linear("rpn.head.conv", 2, 2, 3, 3),
        **_linear("rpn.head.cls_logits", 15, 2, 1, 1),
        **_linear("rpn.head.bbox_pred", 60, 2, 1, 1),
    }


def _norm_aware() -> Shapes:
    """What NAE and SeqNet share."""
    return {
        **_proposals(),
        **_stage("roi_heads.box_head", "layer4", 3),
        **_linear("roi_heads.box_predictor.bbox_pred.0", 8, 4),
        **_norm("roi_heads.box_predictor.bbox_pred.1", 8),
        **_linear("roi_heads.embedding_head.projectors.feat_res4.0", 3, 2),
        **_norm("roi_heads.embedding_head.projectors.feat_res4.1", 3),
        **_linear("roi_heads.embedding_head.projectors.feat_res5.0", 3, 4),
        **_norm("roi_heads.embedding_head.projectors.feat_res5.1", 3),
        **_norm("roi_heads.embedding_head.rescaler", 1),
        "roi_heads.reid_loss.lut": (5, 6),
        "roi_heads.reid_loss.cq": (4, 6),
    }


def _seqnet() -> Shapes:
    return {
        **_norm_aware(),
        **_stage("roi_heads.reid_head", "layer4", 3),
        **_linear("roi_heads.faster_rcnn_predictor.cls_score", 2, 4),
        **_linear("roi_heads.faster_rcnn_predictor.bbox_pred", 8, 4),
    }


def _nae() -> Shapes:
    return {**_norm_aware(), **_linear("roi_heads.box_predictor.cls_score", 2, 4)}


def _nae_plus() -> Shapes:
    projectors = "roi_heads.embedding_head.projectors"
    return {
        **_nae(),
        **_linear(f"{projectors}.feat_res4.0", 3, 2, 1, 1),
        **_linear(f"{projectors}.feat_res5.0", 3, 4, 1, 1),
    }


# Numbers of the convolutions and the norms of OIM-Net, as they are in its source.
_TRUNK = (
    (0, 4, 7, 10, 11, 15, 18, 21, 25, 28, 31, 35, 38, 41, 42, 46, 49, 52, 56, 59, 62, 66, 69, 72)
    + (76, 79, 82, 83, 87, 90, 93, 97, 100, 103),
    (1, 5, 8, 13, 16, 19, 23, 26, 29, 33, 36, 39, 44, 47, 50, 54, 57, 60, 64, 67, 70, 74)
    + (77, 80, 85, 88, 91, 95, 98, 101, 105),
)
_HEAD = (
    (107, 110, 113, 117, 120, 123, 127, 130, 133, 137, 140, 143, 144, 148, 151, 154)
    + (158, 161, 164),
    (108, 111, 115, 118, 121, 125, 128, 131, 135, 138, 141, 146, 149, 152, 156, 159, 162, 166),
)


def _oim() -> Shapes:
    entries: Shapes = {}
    for module, (convolutions, norms) in (("backbone", _TRUNK), ("head", _HEAD)):
        for number in convolutions:
            entries.update(_linear(f"{module}.SpatialConvolution_{number}", 2, 2, 1, 1))
        for number in norms:
            entries.update(_norm(f"{module}.BN_{number}", 2))
    return {
        **entries,
        **_linear("rpn.rpn_conv", 2, 2, 3, 3),
        **_linear("rpn.rpn_cls_score", 18, 2, 1, 1),
        **_linear("rpn.rpn_bbox_pred", 36, 2, 1, 1),
        **_linear("cls_score", 2, 4),
        **_linear("bbox_pred", 8, 4),
        **_linear("feature", 6, 4),
        "labeled_matching_layer.lookup_table": (5, 6),
        "unlabeled_matching_layer.queue": (4, 6),
        "unlabeled_matching_layer.tail": (),
    }


def _coat() -> Shapes:
    entries = {
        **_proposals(),
        **_transformers("roi_heads.box_head"),
        **_linear("roi_heads.box_predictor_1st.cls_score", 2, 4),
        **_linear("roi_heads.box_predictor_1st.bbox_pred", 8, 4),
    }
    for stage, boxes in (("2nd", "box_predictor"), ("3rd", "box_predictor_3rd")):
        embedding = f"roi_heads.embedding_head_{stage}"
        entries.update(_transformers(f"roi_heads.box_head_{stage}"))
        entries.update(_linear(f"roi_heads.{boxes}.bbox_pred.0", 8, 4))
        entries.update(_norm(f"roi_heads.{boxes}.bbox_pred.1", 8))
        for name, size in (("before_trans", 2), ("after_trans", 4)):
            entries.update(_linear(f"{embedding}.projectors.{name}.0", 3, size))
            entries.update(_norm(f"{embedding}.projectors.{name}.1", 3))
        entries.update(_norm(f"{embedding}.rescaler", 1))
        entries[f"roi_heads.reid_loss_{stage}.lut"] = (5, 6)
        entries[f"roi_heads.reid_loss_{stage}.cq"] = (4, 6)
    return entries


def _transformers(head: str) -> Shapes:
    encoder = f"{head}.transformer_encoder"
    entries = {f"{head}.conv{i}.weight": (2, 2, 1, 1) for i in (0, 1, 2)}
    entries.update(_linear(f"{encoder}.output_linear.0", 2, 2, 3, 3))
    for scale, side in (("scale1", 1), ("scale2", 3)):
        branch = f"{encoder}.blocks.{scale}.0"
        block = f"{branch}.transblock"
        for name in ("query_embedding", "value_embedding", "key_embedding", "output_linear"):
            entries.update(_linear(f"{block}.attention.{name}", 2, 2))
        entries.update(_linear(f"{block}.ffn.conv.0", 4, 2))
        entries.update(_linear(f"{block}.ffn.conv.3", 2, 4))
        for name in ("norm1", "norm2"):
            entries.update({f"{block}.{name}.weight": (2,), f"{block}.{name}.bias": (2,)})
        entries.update(_linear(f"{branch}.patch2vec", 2, 2, side, side))
        entries.update(_linear(f"{branch}.vec2patch.embedding", 2 * side * side, 2))
    return entries


def _alignps() -> Shapes:
    entries = {"backbone.conv1.weight": (2, 3, 7, 7), **_norm("backbone.bn1", 2)}
    for i, blocks in enumerate((3, 4, 6, 3), start=1):
        entries.update(_stage("backbone", f"layer{i}", blocks))
    for convs in ("lateral_convs", "fpn_convs"):
        for i in range(3):
            entries[f"neck.{convs}.{i}.weight"] = (2, 2, 3, 3)
            entries.update(_linear(f"neck.{convs}.{i}.conv_offset", 18, 2, 3, 3))
    for i in (3, 4):
        entries.update(_linear(f"neck.fpn_convs.{i}.conv", 2, 2, 3, 3))
    for convs in ("cls_convs", "reg_convs"):
        for i in range(4):
            entries.update(_linear(f"bbox_head.{convs}.{i}.conv", 2, 2, 3, 3))
            entries.update(_linear(f"bbox_head.{convs}.{i}.gn", 2))
        entries.update(_linear(f"bbox_head.{convs}.3.conv.conv_offset", 27, 2, 3, 3))
    for name, channels in (("cls", 1), ("reg", 4), ("centerness", 1)):
        entries.update(_linear(f"bbox_head.conv_{name}", channels, 2, 3, 3))
    return {
        **entries,
        **{f"bbox_head.scales.{i}.scale": () for i in range(5)},
        **_matching_layers("bbox_head."),
    }


def _matching_layers(prefix: str) -> Shapes:
    return {
        f"{prefix}labeled_matching_layer.lookup_table": (5, 6),
        f"{prefix}unlabeled_matching_layer.queue": (4, 6),
        f"{prefix}unlabeled_matching_layer.tail": (),
    }


def _alignps_plus() -> Shapes:
    entries = _alignps()
    for layer, blocks in ((2, 4), (3, 6), (4, 3)):
        for block in range(blocks):
            conv = f"backbone.layer{layer}.{block}.conv2.conv_offset"
            entries.update(_linear(conv, 27, 2, 3, 3))
    return entries


def _roi_alignps() -> Shapes:
    entries = {
        **_alignps(),
        **_matching_layers(""),
        **_linear("rpn_head.rpn_conv", 2, 2, 3, 3),
        **_linear("rpn_head.rpn_cls", 15, 2, 1, 1),
        **_linear("rpn_head.rpn_reg", 60, 2, 1, 1),
        **_stage("roi_head.shared_head", "layer4", 3),
        **_linear("roi_head.bbox_head.fc_cls", 2, 4),
        **_linear("roi_head.bbox_head.fc_reg.0", 4, 4),
        **_norm("roi_head.bbox_head.fc_reg.1", 4),
        **_norm("roi_head.bbox_head.embedding_head.rescaler", 1),
        **_linear("mi_estimator.T_func.0", 2, 4),
        **_linear("mi_estimator.T_func.2", 1, 2),
    }
    for i, size in enumerate((2, 4)):
        projector = f"roi_head.bbox_head.embedding_head.projectors.{i}"
        entries.update(_linear(f"{projector}.0", 3, size))
        entries.update(_norm(f"{projector}.1", 3))
    for prefix in ("", "roi_head.bbox_head."):
        entries[f"{prefix}loss_oim.lut"] = (5, 6)
        entries[f"{prefix}loss_oim.cq"] = (4, 6)
    return entries


def _coat_aliases(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    entries = dict(published)
    for name, alias in (
        (".transblock.", ".transformer.0."),
        ("roi_heads.box_head.", "roi_heads.box_head_1st."),
        ("roi_heads.box_predictor.", "roi_heads.box_predictor_2nd."),
    ):
        entries.update({n.replace(name, alias): t for n, t in entries.items() if name in n})
    return entries
