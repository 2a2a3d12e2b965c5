# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Batches of several crops of each of several persons."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Sampler

from kdps.data.samplers import TrainingStream
from kdps.errors import KdpsError
from kdps.utils.rng import derive_seed

# First numbers of the families of seeds (see kdps.data.samplers).
_SHUFFLE, _SAMPLE, _INSTANCES = 0, 1, 2


class IdentitySampler(TrainingStream, Sampler):
    """An endless stream of identities in random order, each with so many of its crops.

    "In Defense of the Triplet Loss for Person Re-Identification" (Hermans et al., 2017), section 2:
    P identities with K crops each make a batch. A person with fewer crops is shown all of them,
    and some again. Ranks take whole identities in turns; otherwise as
    :class:`ResumableTrainingSampler`.
    """

    def __init__(self, pids: Sequence[int], instances: int, seed: int) -> None:
        """
        Args:
            pids: identity of each crop, 0 or more.
            instances: crops K of an identity that follow each other.
            seed: non-negative, the same on every rank.
        """
        super().__init__(len(pids), seed)
        self.instances = instances
        pids = np.asarray(pids)
        self._of_pid = [np.flatnonzero(pids == pid) for pid in np.unique(pids)]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "instances": self.instances}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["instances"] != self.instances:
            raise KdpsError(
                f"DATALOADER.INSTANCES_PER_IDENTITY: is {self.instances}, but the checkpoint to "
                f"resume from was trained with {state['instances']}"
            )
        super().load_state_dict(state)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, order, count = -1, np.empty(0, dtype=np.int64), len(self._of_pid)
        first = self.position // self.instances + comm.get_rank()
        for block in itertools.count(first, comm.get_world_size()):
            if block // count != epoch:
                epoch = block // count
                order = np.random.default_rng([self.seed, _SHUFFLE, epoch]).permutation(count)
            own = self._of_pid[order[block % count]]
            rng = np.random.default_rng([self.seed, _INSTANCES, block])
            rounds = -(-self.instances // len(own))
            chosen = np.concatenate([rng.permutation(own) for _ in range(rounds)])
            for i, index in enumerate(chosen[: self.instances]):
                position = block * self.instances + i
                yield int(index), derive_seed(self.seed, _SAMPLE, position)
