# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What teacher and student say about a training batch: the input of every distillation loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from detectron2.structures import Boxes


@dataclass
class Places:
    """Where a network looks at people; R places of N images.

    Attributes:
        boxes: for each image (R_i, 4) XYXY pixels of the network input.
        points: for each image (R_i, 2) x and y in the same pixels, where cells of a map rather than
            regions are looked at; the boxes are then those of the people that the cells find.
    """

    boxes: list[Boxes]
    points: list[torch.Tensor] | None = None


@dataclass
class PersonOutputs:
    """What a network says about R places of all images of a batch.

    Attributes:
        places: where it looked. What a teacher says has the student's places.
        person_logits: (R,) logits of being a person; None where a stage only embeds.
        boxes: (R, 4) predicted boxes, XYXY pixels of the student's network input; None likewise.
        embeddings: (R, D) rows of unit length; None where a stage only detects.
        identity_logits: (R, P) cosines to the rows of the network's own lookup table times the
            scale of its OIM loss, or logits of a classifier; None where there is neither. The
            circular queue has no part in it: its slots mean other people in every network.
        known: (P,) bool, the rows of that table that hold something.
        table: (P, D) that lookup table, constant for the gradient.
        is_person: (R,) bool, whether a place is matched with a person. The student's; None in what
            a teacher says.
        pids: (R,) int64 identities of persons, -1 for unlabelled ones; without meaning where
            ``is_person`` is False. The student's.
    """

    places: Places
    person_logits: torch.Tensor | None
    boxes: torch.Tensor | None
    embeddings: torch.Tensor | None = None
    identity_logits: torch.Tensor | None = None
    known: torch.Tensor | None = None
    table: torch.Tensor | None = None
    is_person: torch.Tensor | None = None
    pids: torch.Tensor | None = None


@dataclass
class DistillOutputs:
    """Everything that distillation losses see of one network in one training step.

    Attributes:
        features: (N, C, H, W) maps by name ("res4", "p3"); those of the whole padded batch.
        image_sizes: for each image, height and width of the network input without padding.
        padded_size: height and width of the padded batch. A map covers all of it.
        targets: for each image (M_i, 4) annotated boxes, XYXY pixels of this network's input.
        people: by stage, such as "detector" (which only scores) and "reid". What a teacher says has
            the stages of the student, row by row.
        windows: the same at the shifted boxes of all annotated people, if a loss looks at them, of
            the stages that embed.
    """

    features: dict[str, torch.Tensor]
    image_sizes: list[tuple[int, int]]
    padded_size: tuple[int, int]
    targets: list[Boxes]
    people: Mapping[str, PersonOutputs] = field(default_factory=dict)
    windows: Mapping[str, PersonOutputs] = field(default_factory=dict)
