# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The memory of OIM: a lookup table of labelled identities and a queue of unlabelled people."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from kdps.errors import KdpsError
from kdps.utils.distributed import all_gather_rows


class LookupTable(nn.Module):
    """Lookup table and circular queue of "Joint Detection and Identification Feature Learning for
    Person Search" (Xiao et al., CVPR 2017), section 3.2.

    Row y of the table is the running mean of the embeddings of identity y; the queue holds the
    latest embeddings of people without identity. Both start empty (zero rows) and are buffers, as
    is the queue's pointer, so that a resumed run goes on exactly where it stopped.

    Attributes:
        table: (num_pids, dim) float32 buffer, rows of unit length or zero (of any length where
            they are not kept normalised).
        queue: (queue_size, dim) float32 buffer, rows of unit length or zero.
        pointer: () int64 buffer, the slot of the queue that is written next.
    """

    def __init__(
        self,
        num_pids: int,
        queue_size: int,
        dim: int,
        momentum: float = 0.5,
        normalise: bool = True,
        queue_dims: int = 0,
    ) -> None:
        """
        Args:
            num_pids: labelled identities; 0 for a model that will only be used for search.
            queue_size: length of the circular queue; 0 keeps no unlabelled people.
            dim: size of an embedding.
            momentum: weight of a row's old value in its update, in [0, 1].
            normalise: keep the rows of the table at unit length, as the paper does.
            queue_dims: only so many numbers of an embedding are written to the queue, and the rest
                of its row stays; 0 writes all of them.
        """
        super().__init__()
        self.momentum = momentum
        self.normalise = normalise
        self.queue_dims = queue_dims or dim
        self.register_buffer("table", torch.zeros(num_pids, dim))
        self.register_buffer("queue", torch.zeros(queue_size, dim))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def check_pids(self, pids: torch.Tensor) -> None:
        """Raise a KdpsError if an identity has no row in the table."""
        if pids.numel() and int(pids.max()) >= len(self.table):
            raise KdpsError(
                f"identity {int(pids.max())} is outside the lookup table of {len(self.table)} rows:"
                " set MODEL.REID_HEAD.NUM_PIDS to the identities of the training set"
            )

    @torch.no_grad()
    def update(self, embeddings: torch.Tensor, pids: torch.Tensor) -> None:
        """Take in the people of one training step, of all ranks.

        The result is that of going through the rows of rank 0, then of rank 1 and so on, one at a
        time: ``table[y] <- normalise(m table[y] + (1 - m) x)`` for identity y, and the next slot of
        the queue ``<- x`` for a person without one. Every rank ends with the same memory.

        Args:
            embeddings: (R, dim) rows of unit length, of any float type.
            pids: (R,) int64 identities inside the table (see :meth:`check_pids`, which waits for
                the GPU and is thus left to the caller), -1 for unlabelled people.
        """
        embeddings = all_gather_rows(embeddings.float())
        pids = all_gather_rows(pids)
        labelled = pids >= 0
        self._update_table(embeddings[labelled], pids[labelled])
        self._push(embeddings[~labelled])

    def _update_table(self, embeddings: torch.Tensor, pids: torch.Tensor) -> None:
        # The k-th appearances of all identities touch different rows, so they are one vectorised
        # step; only repeated identities need another round.
        order = torch.argsort(pids, stable=True)
        _, counts = torch.unique_consecutive(pids[order], return_counts=True)
        starts = counts.cumsum(0) - counts
        for k in range(int(counts.max()) if len(counts) else 0):
            rows = order[starts[counts > k] + k]
            old = self.table[pids[rows]]
            new = self.momentum * old + (1.0 - self.momentum) * embeddings[rows]
            self.table[pids[rows]] = F.normalize(new) if self.normalise else new

    def _push(self, embeddings: torch.Tensor) -> None:
        size, count = len(self.queue), len(embeddings)
        if size == 0 or count == 0:
            return
        # Of more rows than slots only the last ones survive.
        kept = min(size, count)
        offsets = torch.arange(count - kept, count, device=embeddings.device)
        dims = self.queue_dims
        self.queue[(self.pointer + offsets) % size, :dims] = embeddings[count - kept :, :dims]
        self.pointer.copy_((self.pointer + count) % size)
