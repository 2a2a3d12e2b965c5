# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What networks say, made up for tests of distillation losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes

from kdps.distillation.losses import NetworkShape
from kdps.structures.distill_outputs import DistillOutputs, PersonOutputs, Places


def shape(
    channels: Mapping[str, int] | None = None,
    dims: Mapping[str, int] | None = None,
    num_pids: int = 5,
    stages: Sequence[str] = ("detector", "reid"),
    dense: bool = False,
    detecting: Sequence[str] | None = None,
) -> NetworkShape:
    """A network with maps of so many channels, and embeddings of so many numbers by stage."""
    channels = {"res4": 2} if channels is None else channels
    maps = {name: ShapeSpec(channels=count, stride=8) for name, count in channels.items()}
    return NetworkShape(
        maps,
        {"reid": 3} if dims is None else dims,
        num_pids,
        tuple(stages),
        dense,
        tuple(stages if detecting is None else detecting),
    )


def seen(
    features: Mapping[str, torch.Tensor] | None = None,
    targets: Sequence[Sequence[Sequence[float]]] = ((),),
    sizes: Sequence[tuple[int, int]] | None = None,
    padded: tuple[int, int] = (16, 16),
    people: Mapping[str, PersonOutputs] | None = None,
    windows: Mapping[str, PersonOutputs] | None = None,
) -> DistillOutputs:
    """Maps of a batch, its annotated boxes and its people."""
    features = {"res4": torch.zeros(len(targets), 2, 2, 2)} if features is None else features
    return DistillOutputs(
        features=dict(features),
        image_sizes=list(sizes or [padded] * len(targets)),
        padded_size=padded,
        targets=[Boxes(torch.tensor(own, dtype=torch.float32).reshape(-1, 4)) for own in targets],
        people=people or {},
        windows=windows or {},
    )


def persons(
    embeddings: torch.Tensor | None = None,
    pids: Sequence[int] | None = None,
    is_person: Sequence[bool] | None = None,
    *,
    logits: torch.Tensor | None = None,
    boxes: torch.Tensor | None = None,
    identity_logits: torch.Tensor | None = None,
    known: Sequence[bool] | None = None,
    table: torch.Tensor | None = None,
) -> PersonOutputs:
    """One stage; all rows are labelled persons unless said otherwise."""
    given = next(x for x in (embeddings, logits, boxes, identity_logits) if x is not None)
    count = len(given)
    return PersonOutputs(
        places=Places([Boxes(torch.zeros(count, 4))]),
        person_logits=torch.zeros(count) if logits is None else logits,
        boxes=torch.zeros(count, 4) if boxes is None else boxes,
        embeddings=embeddings,
        identity_logits=identity_logits,
        known=None if known is None else torch.tensor(known),
        table=table,
        is_person=torch.tensor([True] * count if is_person is None else list(is_person)).bool(),
        pids=torch.tensor(list(range(count)) if pids is None else list(pids)).long(),
    )


def reid(**given: object) -> DistillOutputs:
    """Outputs with one stage "reid" (see :func:`persons`)."""
    return seen(people={"reid": persons(**given)})
