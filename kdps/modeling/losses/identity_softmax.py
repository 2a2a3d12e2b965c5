# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Classification of identities, as in re-identification on crops."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from kdps.layers.row_batch_norm import RowBatchNorm
from kdps.utils.distributed import rank_share


class IdentitySoftmaxLoss(nn.Module):
    """Cross entropy of a linear classifier behind a batch norm (BNNeck).

    COAT ("Cascade Transformers for End-to-End Person Search", Yu et al., CVPR 2022) adds it to OIM
    in training. The neck is that of "Bag of Tricks and a Strong Baseline for Deep Person
    Re-identification" (Luo et al., CVPRW 2019), section 3.6: a norm whose shift stays zero.
    Computed in float32, whatever the type of the embeddings.

    Attributes:
        embeds: the neck serves inference, too.
    """

    def __init__(
        self, num_pids: int, dim: int, label_smoothing: float = 0.0, *, embeds: bool = False
    ) -> None:
        """
        Args:
            num_pids: labelled identities, at least 1.
            dim: size of an embedding.
            label_smoothing: share of the target that all identities have together ("Rethinking the
                Inception Architecture for Computer Vision", Szegedy et al., CVPR 2016).
            embeds: see above.
        """
        super().__init__()
        self.label_smoothing = label_smoothing
        self.embeds = embeds
        self.neck = RowBatchNorm(dim)
        self.neck.bias.requires_grad_(False)
        self.classifier = nn.Linear(dim, num_pids, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, embeddings: torch.Tensor, pids: torch.Tensor) -> torch.Tensor:
        """
        Args:
            embeddings: (P, D) embeddings, one per person (no background).
            pids: (P,) int64 identities below ``num_pids``; -1 for unlabelled people, who take part
                in the statistics of the neck only.

        Returns:
            Scalar, the mean over labelled people, of all ranks; zero (with a gradient of zero) if
            there are none.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.loss(self.neck(embeddings.float()), pids)

    def loss(self, necks: torch.Tensor, pids: torch.Tensor) -> torch.Tensor:
        """The loss of (P, D) float32 rows that are behind the neck already."""
        labelled = pids >= 0
        logits = self.classifier(necks[labelled])
        share = rank_share(len(logits), logits.device)
        if len(logits) == 0:
            return logits.sum()
        loss = F.cross_entropy(logits, pids[labelled], label_smoothing=self.label_smoothing)
        return loss * share
