# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Detection losses over the cells of feature maps, as in FCOS."""

from __future__ import annotations

import torch
from detectron2.modeling.box_regression import Box2BoxTransformLinear
from fvcore.nn import giou_loss, sigmoid_focal_loss
from torch.nn import functional as F

from kdps.utils.distributed import rank_share


def centreness(distances: torch.Tensor) -> torch.Tensor:
    """How far in the middle of its box a point is: (R,) numbers from 0 to 1.

    "FCOS: Fully Convolutional One-Stage Object Detection" (Tian et al., ICCV 2019), equation 3.

    Args:
        distances: (R, 4) distances above zero to left, top, right and bottom of the box.
    """
    across, down = distances[:, [0, 2]], distances[:, [1, 3]]
    ratio_x = across.amin(dim=1) / across.amax(dim=1)
    ratio_y = down.amin(dim=1) / down.amax(dim=1)
    return (ratio_x * ratio_y).sqrt()


def cell_losses(
    logits: torch.Tensor,
    deltas: torch.Tensor,
    centre_logits: torch.Tensor,
    found: torch.Tensor,
    cells: torch.Tensor,
    targets: torch.Tensor,
    transform: Box2BoxTransformLinear,
    *,
    focal_alpha: float = 0.25,
    focal_gamma: float = 2.0,
) -> dict[str, torch.Tensor]:
    """The losses of AlignPS's detector, which are FCOS's with GIoU.

    Args:
        logits: (N, R') person logits of N images: those of the R cells of the map that finds
            people, then those of other maps, which are all background.
        deltas: (N, R, 4) predicted distances.
        centre_logits: (N, R) logits of the centreness.
        found: (N, R) bool, the cells that have a person to find, P in number.
        cells: (R, 4) boxes of the cells.
        targets: (P, 4) the boxes to find, in the order of ``found``.
        transform: coder of the distances.
        focal_alpha, focal_gamma: of the focal loss.

    Returns:
        "loss_cls": the focal loss, summed and divided by P + N; "loss_box_reg": GIoU, its mean
        weighted with the true centreness; "loss_centreness": binary cross entropy, mean over P.
        Without anybody to find the last two are zero, with a gradient of zero. All three are
        divided by the numbers of all ranks.
    """
    labels = torch.zeros_like(logits)
    labels[:, : found.shape[1]] = found.to(labels.dtype)
    people = len(targets)
    focal = sigmoid_focal_loss(logits, labels, focal_alpha, focal_gamma, reduction="sum")
    places = cells.expand(len(found), -1, -1)[found]
    weights = centreness(transform.get_deltas(places, targets))
    boxes = transform.apply_deltas(deltas[found], places)
    losses = giou_loss(boxes, targets)
    centre_loss = F.binary_cross_entropy_with_logits(centre_logits[found], weights, reduction="sum")
    focal_share, weight_share, people_share = (
        rank_share(count, logits.device) for count in (people + len(found), weights.sum(), people)
    )
    return {
        "loss_cls": focal / (people + len(found)) * focal_share,
        "loss_box_reg": (weights * losses).sum() / weights.sum().clamp(min=1e-6) * weight_share,
        "loss_centreness": centre_loss / max(people, 1) * people_share,
    }
