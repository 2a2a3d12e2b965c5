# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A trained kdps model from the config and the weights that a teacher's node names."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from kdps.checkpoint.checkpointer import PersonSearchCheckpointer, local_weights
from kdps.checkpoint.fingerprint import weights_hash
from kdps.checkpoint.formats import read_weights
from kdps.errors import KdpsError
from kdps.modeling.losses import IdentitySoftmaxLoss

# Ends of the names of the parts of a checkpoint that have a row for each identity, or slot.
_ROWS_OF_PIDS, _ROWS_OF_QUEUE = ("memory.table", "identities.classifier.weight"), "memory.queue"


def load_teacher(
    name: str,
    student: CfgNode,
    *,
    config_file: str,
    weights: str,
    opts: tuple[str, ...],
    other_data: bool,
) -> tuple[CfgNode, nn.Module]:
    """The config and the model of a teacher.

    Args:
        name: in ``DISTILLATION.TEACHERS``.
        student: the student's config.
        config_file: of the teacher. Nodes that are not kdps' own, of a method of the user's, have
            the student's values where the file says nothing of them.
        weights: its checkpoint, which has to fill all of it.
        opts: keys and values on top of the config file.
        other_data: whether it may have been trained on other sets than the student is.

    Raises:
        KdpsError: a file is missing or does not fit; the message names key and file.
    """
    key = f"DISTILLATION.{name}"
    cfg = _teacher_config(key, config_file, opts, student)
    cfg.MODEL.DEVICE = student.MODEL.DEVICE
    if not other_data and cfg.DATASETS.TRAIN != student.DATASETS.TRAIN:
        raise KdpsError(
            f"{key}.CONFIG_FILE: {config_file} is trained on {', '.join(cfg.DATASETS.TRAIN)}, "
            f"the student on {', '.join(student.DATASETS.TRAIN)}; if that is meant, set "
            f"{key}.OTHER_DATA True"
        )
    if not weights:
        raise KdpsError(f"{key}.WEIGHTS: empty; name the checkpoint of the teacher")
    try:
        path = local_weights(weights)
        content = read_weights(path, lazily=True)
        _fill_table_sizes(cfg, content)
        model = build_model(cfg)
        PersonSearchCheckpointer(model).load_complete(path)
        _check_classifier(model, content, path)
    except KdpsError as error:
        raise KdpsError(f"{key}.WEIGHTS: {str(error).removeprefix('MODEL.WEIGHTS: ')}") from error
    return cfg, model


def fingerprint(model: nn.Module, cfg: CfgNode, *more: object) -> str:
    """Digest of all that decides what a model says of an input.

    Args:
        model: with its weights.
        cfg: its config.
        more: what else decides it.
    """
    decisive = f"{weights_hash(model)} {more} {cfg.MODEL.dump()}"
    return hashlib.sha256(decisive.encode()).hexdigest()


def _teacher_config(key: str, config_file: str, opts: tuple[str, ...], student: CfgNode) -> CfgNode:
    # Not above: the setup of a training checks its distillation.
    from kdps.engine.setup import load_cfg

    if not config_file:
        raise KdpsError(f"{key}.CONFIG_FILE: empty; name the config of the teacher")
    if not Path(config_file).is_file():
        raise KdpsError(f"{key}.CONFIG_FILE: no such file: {config_file}")
    try:
        return load_cfg(config_file, list(map(str, opts)), lambda cfg: _add_nodes(cfg, student))
    except KdpsError as error:
        raise KdpsError(f"{key}.CONFIG_FILE: {error}") from error


def _add_nodes(cfg: CfgNode, other: CfgNode) -> None:
    """Add what another config has beyond a config, but for its distillation."""
    for key, value in other.items():
        if key not in cfg:
            cfg[key] = copy.deepcopy(value)
        elif isinstance(value, CfgNode) and key != "DISTILLATION":
            _add_nodes(cfg[key], value)


def _check_classifier(model: nn.Module, content: dict, path: str) -> None:
    """Raise a KdpsError if a checkpoint lacks the classifier, which inference does without."""
    weights = content.get("model", content)
    for name, module in model.named_modules():
        if isinstance(module, IdentitySoftmaxLoss) and module.embeds:
            key = f"{name}.classifier.weight"
            if key not in weights:
                raise KdpsError(f"{path} has no {key}; without it the teacher knows no identities")


def _fill_table_sizes(cfg: CfgNode, content: dict) -> None:
    """Make room for the identities that the checkpoint holds."""
    weights = content.get("model", content)
    for name, value in weights.items():
        if isinstance(value, torch.Tensor) and name.endswith(_ROWS_OF_PIDS):
            cfg.MODEL.REID_HEAD.NUM_PIDS = len(value)
        elif isinstance(value, torch.Tensor) and name.endswith(_ROWS_OF_QUEUE):
            cfg.MODEL.REID_HEAD.QUEUE_SIZE = len(value)
