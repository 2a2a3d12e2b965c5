# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Focal and global distillation of feature maps (FGD)."""

from __future__ import annotations

import torch
from torch import nn

from kdps.distillation.losses.base import DISTILL_LOSS_REGISTRY
from kdps.distillation.losses.global_context import GlobalContext
from kdps.distillation.losses.masks import person_masks
from kdps.distillation.losses.taps import FeatureLoss, valid_cells
from kdps.errors import KdpsError
from kdps.structures.distill_outputs import DistillOutputs
from kdps.utils.distributed import rank_share

# Weights of the terms by the value of NORMALISE. Those of "sum" are published for two-stage
# detectors; those of "mean" are ours.
WEIGHTS = {"sum": (5e-5, 2.5e-5, 5e-5, 5e-7), "mean": (1.0, 0.5, 1.0, 0.1)}


def attentions(
    x: torch.Tensor, valid: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where, and in which channels, a map is strong.

    "Focal and Global Knowledge Distillation for Detectors" (Yang et al., CVPR 2022), equations 4 to
    7, over the cells that are valid.

    Args:
        x: (N, C, H, W) map.
        valid: (N, H, W) bool.
        temperature: of the softmax.

    Returns:
        (N, H, W) weights whose sum is the number of valid cells, zero elsewhere; (N, C) weights
        whose sum is C.
    """
    count = valid.sum(dim=(1, 2))[:, None]
    strength = x.abs()
    over_channels = strength.mean(dim=1).flatten(1) / temperature
    over_channels = over_channels.masked_fill(~valid.flatten(1), -torch.inf)
    spatial = (count * over_channels.softmax(dim=1)).view(valid.shape)
    over_cells = (strength * valid[:, None]).sum(dim=(2, 3)) / count
    return spatial, x.shape[1] * (over_cells / temperature).softmax(dim=1)


def fgd_terms(
    student: torch.Tensor,
    teacher: torch.Tensor,
    shift: torch.Tensor,
    foreground: torch.Tensor,
    background: torch.Tensor,
    valid: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """The sums of FGD, of all images together.

    The paper's equations 8 and 9, with the teacher's attentions, and the global distillation of its
    section 3.3. Its context, one row for all cells, is never added to the maps, as passes over them
    are what this loss costs: the squares of d + shift are those of d and of the shift, and twice
    their product. Where both nearly cancel, a cell may fall a rounding error below zero.

    Args:
        student, teacher: (N, C, H, W) maps.
        shift: (N, C) what the student's context adds to each of its cells, less what the teacher's
            does.
        foreground, background: (N, H, W) masks (see :func:`person_masks`).
        valid: (N, H, W) bool.
        temperature: of the attentions.

    Returns:
        (4,) squared differences on people and elsewhere, weighted by mask and attentions; absolute
        differences of the attentions; squared differences of the maps with their contexts.
    """
    spatial, channel = attentions(teacher, valid, temperature)
    own_spatial, own_channel = attentions(student, valid, temperature)
    difference = (student - teacher).flatten(2)
    of_channels = torch.stack([channel, torch.ones_like(channel)], dim=1)
    weighted, plain = (of_channels @ difference.square()).unbind(dim=1)
    product = (shift[:, None] @ difference)[:, 0]
    together = plain + 2 * product + shift.square().sum(dim=1, keepdim=True)
    weighted = weighted.view(valid.shape) * spatial
    apart = (own_spatial - spatial).abs().sum() + (own_channel - channel).abs().sum()
    return torch.stack(
        [
            (weighted * foreground).sum(),
            (weighted * background).sum(),
            apart,
            (together * valid.flatten(1)).sum(),
        ]
    )


@DISTILL_LOSS_REGISTRY.register()
class FocalGlobalFeature(FeatureLoss):
    """FGD: people and background apart, attentions, and the global context.

    The contexts of both sides are trained with the student, as published; no gradient reaches
    the teacher.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.5,
        normalise: str = "mean",
        foreground: float | None = None,
        background: float | None = None,
        attention: float | None = None,
        relation: float | None = None,
        **kwargs,
    ) -> None:
        """
        Args:
            temperature: of the attentions; 0.5 for two-stage detectors, 0.8 for FCOS.
            normalise: "sum" divides the published sums by the number of images, so that they grow
                with resolution and channels. "mean" (ours) does not: the masked terms are divided
                by the channels, as the masks sum up to one per box and per image, and foreground
                also by the boxes; attentions and context are means over their numbers.
            foreground, background, attention, relation: weights of the terms; None takes those of
                two-stage detectors for "sum" (FCOS has 1.6e-3, 8e-4, 8e-4 and 8e-6), and 1, 0.5, 1
                and 0.1 for "mean".
            kwargs: see :class:`FeatureLoss`.

        Raises:
            KdpsError: an unknown normalisation, a temperature of 0 or less; otherwise as
                :class:`FeatureLoss`.
        """
        super().__init__(**kwargs)
        if normalise not in WEIGHTS:
            raise KdpsError(f"NORMALISE: unknown value {normalise!r}; known: {', '.join(WEIGHTS)}")
        if temperature <= 0:
            raise KdpsError(f"TEMPERATURE: must be above 0, not {temperature}")
        given = (foreground, background, attention, relation)
        self.weights = [
            default if own is None else own
            for own, default in zip(given, WEIGHTS[normalise], strict=True)
        ]
        self.temperature = temperature
        self.normalise = normalise
        self.own_context = nn.ModuleList(map(GlobalContext, self.channels))
        self.their_context = nn.ModuleList(map(GlobalContext, self.channels))

    def forward(self, student: DistillOutputs, teacher: DistillOutputs) -> dict[str, torch.Tensor]:
        losses = []
        for i, (own, theirs) in enumerate(self.compared(student, teacher)):
            size = own.shape[-2:]
            valid = valid_cells(student, size)
            masks = person_masks(student, size)
            shift = self.own_context[i](own, valid) - self.their_context[i](theirs, valid)
            terms = fgd_terms(own, theirs, shift, *masks, valid, self.temperature)
            counts = self._counts(student, own, valid)
            losses.append(terms / counts.clamp(min=1) * rank_share(counts, own.device))
        terms = torch.stack(losses).mean(dim=0)
        foreground, background, attention, relation = (
            weight * term for weight, term in zip(self.weights, terms, strict=True)
        )
        return {
            "loss_kd_focal": foreground + background,
            "loss_kd_attention": attention,
            "loss_kd_global": relation,
        }

    def _counts(
        self, student: DistillOutputs, own: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        """(4,) what each term is divided by."""
        images, channels = own.shape[:2]
        if self.normalise == "sum":
            return own.new_full((4,), images)
        people = sum(map(len, student.targets))
        cells = valid.sum()
        # Without a copy to or from the device, which the host would wait for.
        on_people, in_images = (own.new_full((), count * channels) for count in (people, images))
        return torch.stack([on_people, in_images, cells + in_images, cells * channels])
