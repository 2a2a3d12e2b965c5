# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A frozen person-search model as teacher."""

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
from kdps.distillation.feature_cache import FeatureCache
from kdps.distillation.network_teacher import NetworkTeacher
from kdps.distillation.shapes import network_shape
from kdps.distillation.teacher import TEACHER_REGISTRY
from kdps.errors import KdpsError

# Ends of the names of the buffers of a lookup table.
_TABLE, _QUEUE = "memory.table", "memory.queue"


@TEACHER_REGISTRY.register()
class SceneTeacher(NetworkTeacher):
    """Another kdps model, from its own config and its own weights."""

    def __init__(
        self,
        name: str,
        cfg: CfgNode,
        *,
        config_file: str = "",
        weights: str = "",
        opts: tuple[str, ...] = (),
        own_size: bool = True,
        half_precision: bool = False,
        own_stream: bool = False,
        other_data: bool = False,
        cache: str = "",
    ) -> None:
        """
        Args:
            name: in ``DISTILLATION.TEACHERS``.
            cfg: the student's config.
            config_file: of the teacher. Nodes that are not kdps' own, of a method of the user's,
                have the student's values where the file says nothing of them.
            weights: its checkpoint, which has to fill all of it.
            opts: keys and values on top of the config file.
            own_size, half_precision, own_stream: see :class:`NetworkTeacher`.
            other_data: the teacher may have been trained on other sets than the student is; then
                their identities are not compared.
            cache: folder where its feature maps are kept between epochs and runs, by the pixels
                they are of; worth it where the same inputs come again (one training size, no
                crops) and the disk is large. Empty: none.

        Raises:
            KdpsError: a file is missing or does not fit; the message names key and file.
        """
        key = f"DISTILLATION.{name}"
        own = _teacher_config(key, config_file, opts, cfg)
        own.MODEL.DEVICE = cfg.MODEL.DEVICE
        if not other_data and own.DATASETS.TRAIN != cfg.DATASETS.TRAIN:
            raise KdpsError(
                f"{key}.CONFIG_FILE: {config_file} is trained on {', '.join(own.DATASETS.TRAIN)}, "
                f"the student on {', '.join(cfg.DATASETS.TRAIN)}; if that is meant, set "
                f"{key}.OTHER_DATA True"
            )
        if not weights:
            raise KdpsError(f"{key}.WEIGHTS: empty; name the checkpoint of the teacher")
        try:
            path = local_weights(weights)
            _fill_table_sizes(own, read_weights(path, lazily=True))
            model = build_model(own)
            PersonSearchCheckpointer(model).load_complete(path)
        except KdpsError as error:
            raise KdpsError(
                f"{key}.WEIGHTS: {str(error).removeprefix('MODEL.WEIGHTS: ')}"
            ) from error
        kept = None
        if cache:
            kept = FeatureCache(cache, _fingerprint(model, own, half_precision))
        super().__init__(
            name,
            model,
            own,
            cfg.INPUT.FORMAT,
            own_size=own_size,
            half_precision=half_precision,
            own_stream=own_stream,
            cache=kept,
        )
        self.shape = network_shape(model)
        self.identities = tuple(own.DATASETS.TRAIN)
        self.knows_identities = all(oim.memory.table.any() for oim in model.memories().values())


def _fingerprint(model: nn.Module, cfg: CfgNode, half_precision: bool) -> str:
    """Digest of all that decides the maps of an input."""
    decisive = f"{weights_hash(model)} {half_precision} {cfg.MODEL.dump()}"
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


def _fill_table_sizes(cfg: CfgNode, content: dict) -> None:
    """Make room for the lookup tables that the checkpoint holds."""
    weights = content.get("model", content)
    for name, value in weights.items():
        if isinstance(value, torch.Tensor) and name.endswith(_TABLE):
            cfg.MODEL.REID_HEAD.NUM_PIDS = len(value)
        elif isinstance(value, torch.Tensor) and name.endswith(_QUEUE):
            cfg.MODEL.REID_HEAD.QUEUE_SIZE = len(value)
