# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Feature maps of student and teacher, brought to one shape."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from kdps.distillation.losses.base import DistillLoss, NetworkShape
from kdps.errors import KdpsError
from kdps.structures.distill_outputs import DistillOutputs

# Values of ADAPTER: a 1 x 1 convolution where the channels differ, or everywhere.
ADAPTERS = ("auto", "always")


class FeatureLoss(DistillLoss):
    """What losses on feature maps share: which maps they compare, and in which shape.

    The student's map goes through a 1 x 1 convolution where its channels are not the teacher's; the
    teacher's is resized to the cells of the student's where these differ.
    """

    def __init__(
        self,
        *,
        student: NetworkShape,
        teacher: NetworkShape,
        features: tuple[str, ...] = ("res4",),
        teacher_features: tuple[str, ...] = (),
        adapter: str = "auto",
    ) -> None:
        """
        Args:
            student, teacher: see :class:`DistillLoss`.
            features: names of the student's maps.
            teacher_features: names of the teacher's, one for each; empty: the same.
            adapter: "auto" or "always".

        Raises:
            KdpsError: a map is not there, or they do not go in pairs.
        """
        super().__init__(student=student, teacher=teacher)
        if adapter not in ADAPTERS:
            known = ", ".join(ADAPTERS)
            raise KdpsError(f"ADAPTER: unknown value {adapter!r}; known: {known}")
        if not features:
            raise KdpsError("FEATURES: empty; name the maps to compare")
        theirs = teacher_features or features
        if len(theirs) != len(features):
            raise KdpsError(
                f"TEACHER_FEATURES: {len(theirs)} maps for the {len(features)} of FEATURES"
            )
        for key, names, shape, who in (
            ("FEATURES", features, student, "student"),
            ("TEACHER_FEATURES", theirs, teacher, "teacher"),
        ):
            unknown = [name for name in names if name not in shape.features]
            if unknown:
                known = ", ".join(shape.features)
                raise KdpsError(f"{key}: the {who} has no map {unknown[0]!r} (it has {known})")
        self.pairs = list(zip(features, theirs, strict=True))
        self.channels = [teacher.features[name].channels for name in theirs]
        self.adapters = nn.ModuleList(
            _adapter(student.features[own].channels, channels, adapter == "always")
            for own, channels in zip(features, self.channels, strict=True)
        )

    def compared(
        self, student: DistillOutputs, teacher: DistillOutputs
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pairs of (N, C, H, W) float32 maps: the student's, adapted, and the teacher's."""
        for (own_name, their_name), adapt in zip(self.pairs, self.adapters, strict=True):
            own = adapt(student.features[own_name].float())
            theirs = teacher.features[their_name].detach().float()
            if own.shape[-2:] != theirs.shape[-2:]:
                theirs = F.interpolate(theirs, own.shape[-2:], mode="bilinear", align_corners=False)
            yield own, theirs


def valid_cells(outputs: DistillOutputs, size: tuple[int, int]) -> torch.Tensor:
    """(N, H, W) bool: cells of a map of this size that begin inside of their image."""
    device = next(iter(outputs.features.values())).device
    sides = torch.tensor([tuple(own) for own in outputs.image_sizes], device=device)
    cell = [padded / cells for padded, cells in zip(outputs.padded_size, size, strict=True)]
    rows = torch.arange(size[0], device=device) * cell[0] < sides[:, :1]
    columns = torch.arange(size[1], device=device) * cell[1] < sides[:, 1:]
    return rows[:, :, None] & columns[:, None, :]


def _adapter(channels: int, theirs: int, always: bool) -> nn.Module:
    if channels == theirs and not always:
        return nn.Identity()
    adapter = nn.Conv2d(channels, theirs, 1)
    nn.init.kaiming_normal_(adapter.weight, mode="fan_in", nonlinearity="linear")
    nn.init.zeros_(adapter.bias)
    return adapter
