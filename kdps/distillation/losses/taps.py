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
    teacher's is sampled at the cells of the student's, image by image, so that both show the same
    part of it whatever their sizes and their padding are.
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
            yield own, sample_at_cells(theirs, teacher, student, tuple(own.shape[-2:]))


def sample_at_cells(
    maps: torch.Tensor, seen: DistillOutputs, other: DistillOutputs, size: tuple[int, int]
) -> torch.Tensor:
    """Maps of one network, bilinearly at the centres of the cells of another's maps.

    Args:
        maps: (N, C, H, W) of ``seen``.
        seen, other: of both networks, which see the same images, each in its sizes and padding.
        size: rows and columns of the other's maps.

    Returns:
        (N, C, *size) maps; what lies beyond the border is the border's value.
    """
    if (
        tuple(maps.shape[-2:]) == size
        and seen.padded_size == other.padded_size
        and [tuple(x) for x in seen.image_sizes] == [tuple(x) for x in other.image_sizes]
    ):
        return maps
    axes = []
    for axis in (0, 1):
        # Centres as parts of the other's padded side, then of the own one, from -1 to 1.
        centres = (torch.arange(size[axis], device=maps.device) + 0.5) / size[axis]
        factors = [
            mine[axis] / theirs[axis] * other.padded_size[axis] / seen.padded_size[axis]
            for mine, theirs in zip(seen.image_sizes, other.image_sizes, strict=True)
        ]
        axes.append(2 * maps.new_tensor(factors)[:, None] * centres - 1)
    y, x = axes
    grid = torch.stack(
        [x[:, None, :].expand(-1, size[0], -1), y[:, :, None].expand(-1, -1, size[1])], dim=-1
    )
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=False)


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
