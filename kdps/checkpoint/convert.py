# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Weights of public implementations under the names and in the layout of kdps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kdps.checkpoint.keymaps.alignps import ALIGNPS_RULES, ROI_ALIGNPS_RULES
from kdps.checkpoint.keymaps.coat import COAT_RULES
from kdps.checkpoint.keymaps.nae import NAE_PLUS_RULES, NAE_RULES
from kdps.checkpoint.keymaps.oim import OIM_RESNET_RULES, OIM_RULES
from kdps.checkpoint.keymaps.seqnet import SEQNET_RULES
from kdps.checkpoint.prw_table import PUBLIC_ROWS, renumber_prw_table
from kdps.checkpoint.rules import Converted, Rule, apply_rules, rules_explain
from kdps.errors import KdpsError


@dataclass(frozen=True)
class Method:
    """A public implementation whose checkpoints kdps reads.

    Attributes:
        title: its name, for messages.
        rules: what becomes of each entry.
        wrapper: where in a checkpoint the weights are; they may also come alone.
        prw_first: PRW's number of the person in the first row of its lookup table of PRW.
    """

    title: str
    rules: Sequence[Rule]
    wrapper: str = "model"
    prw_first: int = 1


METHODS = {
    "seqnet": Method("SeqNet", SEQNET_RULES),
    "nae": Method("NAE", NAE_RULES, prw_first=0),
    "nae+": Method("NAE+", NAE_PLUS_RULES, prw_first=0),
    "oim": Method("OIM-Net", OIM_RULES),
    "oim-resnet": Method("OIM-Net's ImageNet weights", OIM_RESNET_RULES),
    "coat": Method("COAT", COAT_RULES),
    "alignps": Method("AlignPS", ALIGNPS_RULES, wrapper="state_dict"),
    "roi-alignps": Method("ROI-AlignPS", ROI_ALIGNPS_RULES, wrapper="state_dict"),
}


_BESIDE = "beside the weights, as the state of a training"
# How names begin that only models of kdps have.
_OURS = ("proposal_generator.", "backbone.bottom_up.")


def convert(checkpoint: Mapping[str, Any], method: str) -> Converted:
    """Weights of a public implementation for the models of kdps.

    The converted model computes the same function. Lookup tables of PRW get the rows of kdps.
    Pointers of queues that are not in the checkpoint are 0, as when the public code resumes.

    Args:
        checkpoint: a published checkpoint, or its weights alone.
        method: one of ``METHODS``.

    Raises:
        KdpsError: an entry is unknown or missing, or its rows are not those of one class or anchor
            more; the message says so if the checkpoint looks like one of another method. Other
            shapes are found by whoever loads the weights.
    """
    known = METHODS[method]
    wrapped = known.wrapper in checkpoint
    state = checkpoint[known.wrapper] if wrapped else checkpoint
    try:
        converted = apply_rules(state, known.rules, known.title)
    except KdpsError as error:
        raise KdpsError(f"{error}{_what_else(checkpoint, method)}") from None
    if wrapped:
        beside = {str(name): _BESIDE for name in checkpoint if name != known.wrapper}
        converted.dropped.update(beside)
    weights = converted.weights
    for table in [name for name in weights if name.endswith(".memory.table")]:
        if len(weights[table]) == PUBLIC_ROWS:
            weights[table] = renumber_prw_table(weights[table], known.prw_first)
        pointer = f"{table.removesuffix('table')}pointer"
        weights.setdefault(pointer, torch.zeros((), dtype=torch.int64))
    return converted


def _what_else(checkpoint: Mapping[str, Any], method: str) -> str:
    """What a checkpoint looks like that is not one of ``method``, as the end of a message."""
    for name, other in METHODS.items():
        state = checkpoint.get(other.wrapper, checkpoint)
        if name != method and _named(state) and rules_explain(_named(state), other.rules):
            return f"; it looks like {other.title} (--from {name})"
    if any(key.startswith(_OURS) for key in _named(checkpoint.get("model"))):
        return "; it looks like a checkpoint of kdps, which needs no conversion"
    return ""


def _named(state: Any) -> dict[str, Any]:
    """The entries of a state dict, of which there are none if it is something else."""
    if not isinstance(state, Mapping):
        return {}
    return {key: value for key, value in state.items() if isinstance(key, str)}
