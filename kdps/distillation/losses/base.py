# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What every distillation loss is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry
from torch import nn

from kdps.errors import KdpsError
from kdps.structures.distill_outputs import DistillOutputs

DISTILL_LOSS_REGISTRY = Registry("DISTILL_LOSS")
DISTILL_LOSS_REGISTRY.__doc__ = """
Losses between a student and a teacher, subclasses of :class:`DistillLoss`. The name of one in
``DISTILLATION.LOSSES`` has a node ``DISTILLATION.<NAME>``, whose keys, in lower case, are the
keyword arguments of the class.
"""


@dataclass(frozen=True)
class NetworkShape:
    """What a loss knows of a network before it has seen anything of it.

    Attributes:
        features: channels and stride of each map of its backbone, by name.
        embedding_dims: size of an embedding, by stage; a stage that only detects has none.
        num_pids: identities that it tells apart: rows of its lookup tables, or of a classifier.
        stages: names of all its stages.
        dense: its stage "detector" looks at every cell of a map, and not at regions.
        detecting_stages: those that score and regress boxes; None: all.
    """

    features: Mapping[str, ShapeSpec]
    embedding_dims: Mapping[str, int]
    num_pids: int
    stages: tuple[str, ...] = ()
    dense: bool = False
    detecting_stages: tuple[str, ...] | None = None


class DistillLoss(nn.Module):
    """A loss between what a student and what a teacher say of the same batch.

    What adapts the student to the teacher (a projection to its channels, say) is a part of the
    loss: it is trained with the student and stays behind when the student is saved.

    Attributes:
        needs_identities: whether rows of both lookup tables have to mean the same persons.
        needs_windows: whether it looks at the shifted boxes of annotated people.
    """

    needs_identities = False
    needs_windows = False

    def __init__(self, *, student: NetworkShape, teacher: NetworkShape) -> None:
        """A subclass takes its settings as further keyword arguments, all with a default.

        Args:
            student, teacher: of both networks.

        Raises:
            KdpsError: they do not fit each other, or a setting is wrong. The message names the key
                as "FEATURES: ..."; whoever builds the loss puts "DISTILLATION.<NAME>." before it.
        """
        super().__init__()

    def forward(self, student: DistillOutputs, teacher: DistillOutputs) -> dict[str, torch.Tensor]:
        """
        Args:
            student: with gradients.
            teacher: of the same batch, without. Its maps may have other sizes.

        Returns:
            Scalars by name, "loss_kd_<what>", not weighted; each is zero, yet part of the graph of
            the student, where nothing in the batch can be compared.
        """
        raise NotImplementedError


def chosen_stages(
    asked: tuple[str, ...], known: tuple[str, ...], kind: str = ""
) -> tuple[str, ...]:
    """The stages of a student that a loss is for.

    Args:
        asked: the setting; empty: all.
        known: stages that the student has.
        kind: what is special about them, for the message: " that embeds".

    Raises:
        KdpsError: one that is asked for is not known, or none is.
    """
    unknown = [name for name in asked if name not in known]
    if unknown or not known:
        name = f" {unknown[0]!r}" if unknown else ""
        has = ", ".join(known) or "none"
        raise KdpsError(f"STAGES: the student has no stage{name}{kind} (it has {has})")
    return asked or known
