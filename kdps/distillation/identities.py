# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Similarities of people to the rows of a network's lookup table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from kdps.modeling.losses import OIMLoss
from kdps.structures.distill_outputs import PersonOutputs

Tables = Mapping[str, tuple[torch.Tensor, float]]


def tables_of(memories: Mapping[str, OIMLoss]) -> Tables:
    """The lookup table of each stage, and the scale of its OIM loss."""
    return {stage: (oim.memory.table, oim.scale) for stage, oim in memories.items()}


def with_identities(outputs: PersonOutputs, table: torch.Tensor, scale: float) -> PersonOutputs:
    """The outputs with ``identity_logits``, ``known`` and ``table``, if the table has rows.

    Args:
        outputs: with ``embeddings`` (R, D).
        table: (P, D) rows, zero where nothing is known.
        scale: factor on the cosines.
    """
    if len(table) == 0 or table.shape[1] != outputs.embeddings.shape[1]:
        return outputs
    with torch.autocast(table.device.type, enabled=False):
        logits = scale * outputs.embeddings.float() @ table.T
    return replace(outputs, identity_logits=logits, known=table.any(dim=1), table=table)
