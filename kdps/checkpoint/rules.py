# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Rules that carry a checkpoint from one naming to another, with nothing left unexplained."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from kdps.errors import KdpsError


@dataclass(frozen=True)
class Rule:
    """What becomes of the entries whose whole name matches a pattern.

    Attributes:
        pattern: regular expression of the old name.
        name: the new name, with references to the pattern's groups; None drops the entry (say why
            beside the rule).
        rows: rows of the old tensor to take, in this order; None takes it as it is.
    """

    pattern: str
    name: str | None
    rows: tuple[int, ...] | None = None


def apply_rules(
    state: Mapping[str, torch.Tensor], rules: Sequence[Rule], source: str
) -> dict[str, torch.Tensor]:
    """Carry over every entry of a state dict by the first rule that matches its name.

    Args:
        state: names and tensors.
        rules: see :class:`Rule`.
        source: what the weights are of, for messages.

    Raises:
        KdpsError: this is no state dict, no rule knows an entry, a rule knows none, or a tensor has
            too few rows.
    """
    if not isinstance(state, Mapping):
        raise KdpsError(f"{source}: the checkpoint holds no weights but a {type(state).__name__}")
    converted: dict[str, torch.Tensor] = {}
    unused = set(rules)
    for old_name, tensor in state.items():
        for rule in rules:
            match = re.fullmatch(rule.pattern, old_name)
            if match:
                break
        else:
            raise KdpsError(f"{source}: the checkpoint has an unknown entry {old_name!r}")
        unused.discard(rule)
        if not isinstance(tensor, torch.Tensor):
            raise KdpsError(f"{source}: {old_name!r} is no tensor but a {type(tensor).__name__}")
        if rule.name is None:
            continue
        if rule.rows is not None:
            count = len(tensor) if tensor.ndim else 0
            if count <= max(rule.rows):
                raise KdpsError(
                    f"{source}: {old_name!r} has {count} rows, not {max(rule.rows) + 1}"
                )
            tensor = tensor[list(rule.rows)]
        converted[match.expand(rule.name)] = tensor
    if unused:
        missing = min(rule.pattern for rule in unused)
        raise KdpsError(f"{source}: the checkpoint has no entry like {missing!r}")
    return converted
