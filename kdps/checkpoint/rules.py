# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Rules that carry a checkpoint from one naming to another, with nothing left unexplained."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from kdps.errors import KdpsError

# The groups of a pattern, and those of the kind (res[45]).
_GROUP = re.compile(r"\((?!\?)([^()]*)\)")
_ONE_OF = re.compile(r"(\w*)\[(\w+)\]")


@dataclass(frozen=True)
class Rule:
    """What becomes of the entries whose whole name matches a pattern.

    Attributes:
        pattern: regular expression of the old name.
        name: the new name, with references to the pattern's groups; None drops the entry.
        rows: rows of the old tensor to take, in this order; None takes it as it is.
        minus: rows of the old tensor to subtract from those.
        ndim: dimensions that the old tensor must have; None takes any.
        as_matrix: make a matrix of it, as of the kernels of 1 x 1 convolutions.
        reason: why the entry is dropped.
        optional: there may be no such entry.
    """

    pattern: str
    name: str | None
    rows: tuple[int, ...] | None = None
    minus: tuple[int, ...] | None = None
    ndim: int | None = None
    as_matrix: bool = False
    reason: str = ""
    optional: bool = False


@dataclass
class Converted:
    """What rules made of a checkpoint.

    Attributes:
        weights: the new names and tensors, which share nothing with the old ones.
        dropped: the old names that were dropped, with the reasons.
    """

    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)


def apply_rules(state: Mapping[str, torch.Tensor], rules: Sequence[Rule], source: str) -> Converted:
    """Carry over every entry of a state dict by the first rule that matches its name.

    Two entries may become one, if they hold the same.

    Args:
        state: names and tensors.
        rules: see :class:`Rule`.
        source: what the weights are of, for messages.

    Raises:
        KdpsError: this is no state dict, no rule knows an entry, a rule knows none, or not each
            combination of the parts that it knows (as blocks, their convolutions and the parameters
            of these), two entries that are to become one differ, or a tensor has another
            number of rows or dimensions.
    """
    if not isinstance(state, Mapping):
        raise KdpsError(f"{source}: the checkpoint holds no weights but a {type(state).__name__}")
    converted = Converted()
    unused = {rule for rule in rules if not rule.optional}
    found: dict[Rule, set[tuple[str, ...]]] = {}
    for old_name, tensor in state.items():
        rule, match = _find(old_name, rules)
        if rule is None:
            raise KdpsError(f"{source}: the checkpoint has an unknown entry {old_name!r}")
        unused.discard(rule)
        if not isinstance(tensor, torch.Tensor):
            raise KdpsError(f"{source}: {old_name!r} is no tensor but a {type(tensor).__name__}")
        if rule.name is None:
            converted.dropped[old_name] = rule.reason
            continue
        try:
            tensor = _taken(tensor, rule)
        except KdpsError as error:
            raise KdpsError(f"{source}: {old_name!r} {error}") from None
        found.setdefault(rule, set()).add(match.groups())
        name = match.expand(rule.name)
        known = converted.weights.setdefault(name, tensor)
        if known is not tensor and not torch.equal(known, tensor):
            raise KdpsError(f"{source}: {old_name!r} and another entry for {name!r} differ")
    if unused:
        missing = min(rule.pattern for rule in unused)
        raise KdpsError(f"{source}: the checkpoint has no entry like {missing!r}")
    for rule, parts in found.items():
        _require_all(rule, parts, source)
    return converted


def _require_all(rule: Rule, found: set[tuple[str, ...]], source: str) -> None:
    """Raise a KdpsError if a combination of the parts that a rule knows is missing."""
    groups = _GROUP.findall(rule.pattern)
    axes = [
        sorted({*seen, *_alternatives(group)})
        for group, seen in zip(groups, zip(*found, strict=True), strict=True)
    ]
    for parts in itertools.product(*axes):
        if parts not in found:
            name = re.sub(r"\\(\d)", lambda group, own=parts: own[int(group[1]) - 1], rule.name)
            raise KdpsError(f"{source}: the checkpoint has nothing that becomes {name!r}")


def _alternatives(group: str) -> list[str]:
    """What a group of a pattern has to match, as far as the pattern says so by words."""
    one_of = _ONE_OF.fullmatch(group)
    words = [one_of[1] + end for end in one_of[2]] if one_of else group.split("|")
    # Norms did not always count their batches, and nothing depends on it.
    known = all(map(str.isidentifier, words))
    return [word for word in words if word != "num_batches_tracked"] if known else []


def rules_explain(state: Mapping[str, Any], rules: Sequence[Rule]) -> bool:
    """Whether rules that are not optional know each of the names, and each of them a name.

    A rule that asks for so many dimensions does not know an entry of others.
    """
    needed = [rule for rule in rules if not rule.optional]
    found = set()
    for name, value in state.items():
        rule, _ = _find(name, needed)
        if rule is None or rule.ndim not in (None, getattr(value, "ndim", None)):
            return False
        found.add(rule)
    return found == set(needed)


def _find(name: str, rules: Sequence[Rule]) -> tuple[Rule | None, re.Match | None]:
    for rule in rules:
        match = re.fullmatch(rule.pattern, name)
        if match:
            return rule, match
    return None, None


def _taken(tensor: torch.Tensor, rule: Rule) -> torch.Tensor:
    """The rows that a rule takes, as a tensor of their own."""
    if rule.ndim is not None and tensor.ndim != rule.ndim:
        raise KdpsError(f"has {tensor.ndim} dimensions, not {rule.ndim}")
    if rule.as_matrix:
        tensor = tensor.flatten(1)
    if rule.rows is None:
        # A view into a larger tensor would be saved with all of it.
        return tensor.clone(memory_format=torch.contiguous_format)
    wanted = max(*rule.rows, *(rule.minus or ())) + 1
    count = len(tensor) if tensor.ndim else 0
    if count != wanted:
        raise KdpsError(f"has {count} rows, not {wanted}")
    taken = tensor[list(rule.rows)]
    return taken if rule.minus is None else taken - tensor[list(rule.minus)]
