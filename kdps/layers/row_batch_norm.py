# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Batch norm of rows of which there may be a single one."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class RowBatchNorm(nn.BatchNorm1d):
    """PyTorch's, which also trains on a single row and on none.

    These have no statistics, and PyTorch's refuses the single row. Here they are normalised by the
    running statistics, which stay as they are.
    """

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(R, C) rows to as many normalised ones."""
        if len(rows) > 1:
            return super().forward(rows)
        return F.batch_norm(
            rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
