# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Online instance matching (OIM) loss."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from torch import nn
from torch.nn import functional as F

from kdps.errors import KdpsError
from kdps.layers.lookup_table import LookupTable
from kdps.utils.distributed import rank_share

# Values of MODEL.REID_HEAD.OIM_AVERAGE: by how many rows the sum is divided.
OIM_AVERAGES = ("labelled", "people")


def oim_loss(
    embeddings: torch.Tensor,
    pids: torch.Tensor,
    table: torch.Tensor,
    queue: torch.Tensor,
    scale: float = 30.0,
    mask_empty: bool = True,
    *,
    own_empty: float = 0.0,
    queue_scale: float | None = None,
    focal_gamma: float = 0.0,
    average: str = "labelled",
) -> torch.Tensor:
    """Cross entropy of labelled people against the lookup table and the queue.

    "Joint Detection and Identification Feature Learning for Person Search" (Xiao et al., CVPR
    2017), equations 1 and 3, with ``scale`` the inverse of the temperature. The memory is constant
    for the gradient. Computed in float32, whatever the type of the embeddings.

    Args:
        embeddings: (P, D) rows of unit length, one per person (no background).
        pids: (P,) int64 identities (rows of ``table``); -1 for unlabelled people, without target.
        table: (L, D) lookup table.
        queue: (Q, D) circular queue; Q may be 0.
        scale: factor on the cosine similarities.
        mask_empty: leave slots that hold nothing yet (zero rows) out of the softmax. With False
            they take part with a similarity of zero, as in the public implementations. The slot of
            a row's own identity always takes part.
        own_empty: the similarity to an empty slot of a row's own identity, with ``mask_empty``. At
            1 the row is hardly pushed away from the others before its identity has a place.
        queue_scale: factor on the similarities to the queue; None takes ``scale``.
        focal_gamma: each row counts (1 - p) ** focal_gamma times, with p the probability of its
            identity; 2 in AlignPS ("Anchor-Free Person Search", Yan et al., CVPR 2021).
        average: "labelled" takes the mean over labelled people; "people" divides their sum by the
            number of all people, as AlignPS does.

    Returns:
        Scalar; zero (with a gradient of zero) without labelled people.
    """
    people = len(pids)
    labelled = pids >= 0
    embeddings, targets = embeddings[labelled].float(), pids[labelled]
    if len(embeddings) == 0:
        return embeddings.sum()
    with torch.autocast(embeddings.device.type, enabled=False):
        # cat copies: the memory may be updated in place before backward needs these values.
        memory = torch.cat([table, queue])
        logits = scale * embeddings @ memory.T
        if queue_scale is not None:
            logits[:, len(table) :] *= queue_scale / scale
        if mask_empty:
            masked = (memory == 0).all(dim=1).repeat(len(targets), 1)
            rows = torch.arange(len(targets), device=masked.device)
            unseen = masked[rows, targets]
            logits = logits.masked_fill(masked, -torch.inf)
            logits[rows[unseen], targets[unseen]] = scale * own_empty
        losses = F.cross_entropy(logits, targets, reduction="none")
        if focal_gamma > 0:
            losses = (1.0 - torch.exp(-losses)) ** focal_gamma * losses
        return losses.sum() / (people if average == "people" else len(losses))


class OIMLoss(nn.Module):
    """:func:`oim_loss` with its memory.

    The memory moves once per training step, after the loss is formed and outside of backward. A
    pass in training mode without gradients (precise batch-norm statistics, say) is no training
    step and leaves it alone.
    """

    def __init__(
        self,
        memory: LookupTable,
        scale: float = 30.0,
        mask_empty: bool = True,
        *,
        own_empty: float = 0.0,
        queue_scale: float | None = None,
        focal_gamma: float = 0.0,
        average: str = "labelled",
    ) -> None:
        """See :func:`oim_loss`.

        Raises:
            KdpsError: an unknown ``average``.
        """
        super().__init__()
        if average not in OIM_AVERAGES:
            known = " or ".join(map(repr, OIM_AVERAGES))
            raise KdpsError(f"MODEL.REID_HEAD.OIM_AVERAGE is {average!r}; it must be {known}")
        self.memory = memory
        self.scale = scale
        self.mask_empty = mask_empty
        self.own_empty = own_empty
        self.queue_scale = queue_scale
        self.focal_gamma = focal_gamma
        self.average = average

    def forward(self, embeddings: torch.Tensor, pids: torch.Tensor) -> torch.Tensor:
        """Loss of one step, a mean over the people of all ranks; see :func:`oim_loss`.

        Raises:
            KdpsError: an identity is outside the lookup table.
        """
        memory = self.memory
        memory.check_pids(pids)
        loss = oim_loss(
            embeddings,
            pids,
            memory.table,
            memory.queue,
            self.scale,
            self.mask_empty,
            own_empty=self.own_empty,
            queue_scale=self.queue_scale,
            focal_gamma=self.focal_gamma,
            average=self.average,
        )
        counted = pids if self.average == "people" else pids[pids >= 0]
        loss = loss * rank_share(len(counted), pids.device)
        if self.training and torch.is_grad_enabled():
            memory.update(embeddings, pids)
        return loss


def build_oim_loss(cfg: CfgNode) -> OIMLoss:
    """The loss of ``MODEL.REID_HEAD``, with an empty memory.

    A model that is only evaluated needs none, so sizes of -1 (not known) make none.
    """
    reid = cfg.MODEL.REID_HEAD
    memory = LookupTable(
        max(reid.NUM_PIDS, 0),
        max(reid.QUEUE_SIZE, 0),
        reid.EMBEDDING_DIM,
        reid.OIM_MOMENTUM,
        reid.OIM_NORMALISE,
        reid.OIM_QUEUE_DIMS,
    )
    return OIMLoss(
        memory,
        reid.OIM_SCALE,
        reid.OIM_MASK_EMPTY,
        own_empty=reid.OIM_OWN_EMPTY,
        queue_scale=reid.OIM_QUEUE_SCALE if reid.OIM_QUEUE_SCALE >= 0 else None,
        focal_gamma=reid.OIM_FOCAL_GAMMA,
        average=reid.OIM_AVERAGE,
    )
