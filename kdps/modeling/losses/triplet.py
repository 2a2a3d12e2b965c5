# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Batch-hard triplet loss, alone and with the rows of OIM's lookup table."""

from __future__ import annotations

import torch

from kdps.utils.distributed import with_other_ranks


def batch_hard_triplet_loss(
    embeddings: torch.Tensor, pids: torch.Tensor, margin: float = 0.3
) -> torch.Tensor:
    """Every row should be farther from all other identities than from all of its own.

    "In Defense of the Triplet Loss for Person Re-Identification" (Hermans et al., 2017), equation
    5, with Euclidean distances. A row alone of its identity is its own positive. Computed in
    float32, whatever the type of the embeddings, over the rows of all ranks together.

    Args:
        embeddings: (P, D) rows.
        pids: (P,) int64 identities; rows of -1, people without one, are left out.
        margin: by how much a positive should be nearer than a negative.

    Returns:
        Scalar, the mean over rows with an identity; zero (with a gradient of zero) for less than
        two identities.
    """
    labelled = pids >= 0
    rows = with_other_ranks(embeddings[labelled].float())
    pids = with_other_ranks(pids[labelled])
    same = pids[:, None] == pids[None, :]
    if bool(same.all()):
        return rows.sum() * 0.0
    with torch.autocast(rows.device.type, enabled=False):
        # By way of a matrix product, distances near zero would lose all their digits.
        distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
        positives = distances.masked_fill(~same, 0.0).amax(dim=1)
        negatives = distances.masked_fill(same, torch.inf).amin(dim=1)
        return (margin + positives - negatives).clamp(min=0.0).mean()


def table_triplet_loss(
    embeddings: torch.Tensor,
    pids: torch.Tensor,
    table: torch.Tensor,
    margin: float = 0.3,
    mask_empty: bool = True,
) -> torch.Tensor:
    """:func:`batch_hard_triplet_loss` in which each person brings the row of the lookup table.

    The triplet part of TOIM, "Anchor-Free Person Search" (Yan et al., CVPR 2021), section 3.4. The
    public code leaves the row of identity 0 out; here it takes part like all others.

    Args:
        embeddings: (P, D) rows of unit length.
        pids: (P,) int64 identities (rows of ``table``), -1 for people without one.
        table: (L, D) lookup table, constant for the gradient.
        margin: see :func:`batch_hard_triplet_loss`.
        mask_empty: leave out rows of the table that hold nothing yet. With False they take part as
            zero vectors, as in the public code.
    """
    brought = pids[pids >= 0]
    rows = table[brought]
    if mask_empty:
        filled = (rows != 0).any(dim=1)
        rows, brought = rows[filled], brought[filled]
    return batch_hard_triplet_loss(
        torch.cat([embeddings.float(), rows]), torch.cat([pids, brought]), margin
    )
