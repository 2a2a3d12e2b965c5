# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Weights of public implementations under the names and in the layout of kdps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from kdps.checkpoint.keymaps.seqnet import SEQNET_RULES
from kdps.checkpoint.rules import apply_rules


def convert_seqnet(checkpoint: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Weights of SeqNet (https://github.com/serend1p1ty/SeqNet) for ``SeqROIHeads``.

    The converted model computes the same function.

    Args:
        checkpoint: a published checkpoint, whose weights are under "model", or these alone.

    Returns:
        A state dict of :class:`kdps.modeling.PersonSearchRCNN`. The queue's pointer, which is not
        in the checkpoint, is 0, as when the public code resumes.

    Raises:
        KdpsError: an entry is unknown, missing or of another shape.
    """
    state = apply_rules(checkpoint.get("model", checkpoint), SEQNET_RULES, "SeqNet")
    state["roi_heads.reid_predictor.oim.memory.pointer"] = torch.zeros((), dtype=torch.int64)
    return state
