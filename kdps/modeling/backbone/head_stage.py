# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The last stage of a network, which heads apply to pooled regions, by the name of its trunk."""

from __future__ import annotations

from collections.abc import Callable

from detectron2.config import CfgNode
from torch import nn

from kdps.errors import KdpsError

# From the config and the channels of a pooled region to the stage and the number of its output
# channels. A stage starts from random weights or those that a checkpoint has for it.
StageBuilder = Callable[[CfgNode, int], tuple[nn.Module, int]]

_BUILDERS: dict[str, StageBuilder] = {}


def register_head_stage(*backbones: str) -> Callable[[StageBuilder], StageBuilder]:
    """Decorator of the function that makes the stage after the trunks of these names.

    Args:
        backbones: values of ``MODEL.BACKBONE.NAME``.
    """

    def register(builder: StageBuilder) -> StageBuilder:
        _BUILDERS.update(dict.fromkeys(backbones, builder))
        return builder

    return register


def build_head_stage(cfg: CfgNode, in_channels: int) -> tuple[nn.Module, int]:
    """The stage that continues the trunk of the config; see ``StageBuilder``.

    Raises:
        KdpsError: that trunk has none.
    """
    name = cfg.MODEL.BACKBONE.NAME
    if name not in _BUILDERS:
        raise KdpsError(
            f"MODEL.BACKBONE.NAME: {name!r} has no last stage for MODEL.ROI_BOX_HEAD.NAME "
            f"{cfg.MODEL.ROI_BOX_HEAD.NAME!r}; those that have one: {', '.join(sorted(_BUILDERS))}"
        )
    return _BUILDERS[name](cfg, in_channels)
