# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The order of training samples: shuffled, endless, and resumable at any position."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Sampler

from kdps.errors import KdpsError
from kdps.utils.rng import derive_seed

# First numbers of the two families of seeds, so that no shuffle shares its seed with a sample.
_SHUFFLE, _SAMPLE = 0, 1


class TrainingStream:
    """An endless stream of samples that is resumed at a position.

    Attributes:
        size: number of records.
        seed: what it is drawn by.
        position: samples, of all ranks together, that were consumed before it begins.
    """

    def __init__(self, size: int, seed: int) -> None:
        """
        Args:
            size: number of records, at least 1.
            seed: non-negative, the same on every rank.

        Raises:
            KdpsError: there is nothing to sample, or no seed.
        """
        if size < 1:
            raise KdpsError("DATASETS.TRAIN: no image is left to train on")
        if seed < 0:
            raise KdpsError(f"SEED: the training sampler needs a seed of 0 or more, not {seed}")
        self.size = size
        self.seed = seed
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        """The stream's identity; the trainer adds how much of it was consumed."""
        return {"seed": self.seed, "size": self.size, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue a saved stream. Takes effect at the next ``iter()``.

        Raises:
            KdpsError: the data set has another number of images than the saved one.
        """
        if state["size"] != self.size:
            raise KdpsError(
                f"DATASETS.TRAIN: has {self.size} images, but the checkpoint to resume from was "
                f"trained on {state['size']}; start a new run with MODEL.WEIGHTS instead"
            )
        self.seed = state["seed"]
        self.position = state["position"]


class ResumableTrainingSampler(TrainingStream, Sampler):
    """An endless stream of shuffled samples whose every element follows from its position.

    Epoch e visits the data set in a permutation drawn from (seed, e). The ranks share out every
    batch in their order, so the stream as a whole is the same for any number of ranks, and
    continues at ``position`` without replaying what came before. Like Detectron2's samplers it does
    not shard by data loader worker; ``build_detection_train_loader`` does.

    Yields:
        (index, sample_seed): the record to load, and the seed of its augmentation.
    """

    def __init__(self, size: int, seed: int, share: int = 1) -> None:
        """
        Args:
            size, seed: see :class:`TrainingStream`.
            share: samples of a batch that a rank takes, one after the other.
        """
        super().__init__(size, seed)
        self.share = share

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        first = self.position + comm.get_rank() * self.share
        for start in itertools.count(first, comm.get_world_size() * self.share):
            for position in range(start, start + self.share):
                if position // self.size != epoch:
                    epoch = position // self.size
                    rng = np.random.default_rng([self.seed, _SHUFFLE, epoch])
                    order = rng.permutation(self.size)
                yield int(order[position % self.size]), derive_seed(self.seed, _SAMPLE, position)
