# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Data loaders of person search, on Detectron2's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    MapDataset,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.data.build import (
    filter_images_with_only_crowd_annotations,
    trivial_batch_collator,
)
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from kdps.data.batching import EqualSizeBatches, padded_sizes
from kdps.data.dataset_mapper import PersonSearchDatasetMapper
from kdps.data.identity_sampler import IdentitySampler
from kdps.data.person_crops import PersonCropMapper, person_records
from kdps.data.samplers import ResumableTrainingSampler, TrainingStream
from kdps.data.training import get_training_dicts
from kdps.errors import KdpsError
from kdps.utils.rng import temporary_seed

Mapper = Callable[[dict[str, Any]], dict[str, Any]]


class SeededDataset(Dataset):
    """Maps records under the seed that the sampler gives with each index.

    Augmentation thus depends on the sample's position in training only, neither on the number of
    workers nor on what a worker has drawn before.
    """

    def __init__(self, records: list[dict[str, Any]], mapper: Mapper) -> None:
        self._records = DatasetFromList(records, copy=False)
        self._mapper = mapper

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        index, seed = item
        with temporary_seed(seed):
            return self._mapper(self._records[index])


def build_train_loader(cfg: CfgNode, mapper: Mapper | None = None) -> DataLoader:
    """The endless training loader; the same batches for any DATALOADER.NUM_WORKERS.

    Args:
        cfg: config with SEED resolved (0 or more). With its sampler "IdentitySampler" the batches
            are of crops of persons.
        mapper: ``PersonSearchDatasetMapper(cfg, is_train=True)``, or ``PersonCropMapper(cfg)``, if
            None.

    Raises:
        KdpsError: a training set is missing or has no image to train on.
    """
    records, _, _ = get_training_dicts(cfg.DATASETS.TRAIN)
    if cfg.DATALOADER.SAMPLER_TRAIN == "IdentitySampler":
        people = person_records(records)
        return _train_loader(
            cfg,
            SeededDataset(people, mapper or PersonCropMapper(cfg)),
            IdentitySampler(
                [person["person_id"] for person in people],
                cfg.DATALOADER.INSTANCES_PER_IDENTITY,
                cfg.SEED,
            ),
        )
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        records = filter_images_with_only_crowd_annotations(records)
    if not records:
        raise KdpsError("DATASETS.TRAIN: no image with a person is left to train on")
    if mapper is None:
        mapper = PersonSearchDatasetMapper(cfg, is_train=True)
    share = cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
    sampler = ResumableTrainingSampler(len(records), cfg.SEED, share)
    return _train_loader(cfg, SeededDataset(records, mapper), sampler)


def _train_loader(cfg: CfgNode, dataset: Dataset, sampler: TrainingStream) -> DataLoader:
    loader = build_detection_train_loader(
        dataset,
        mapper=None,
        sampler=sampler,
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        # Buckets of like shapes hold samples back; their content would be lost on resume.
        aspect_ratio_grouping=False,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
    # An own generator: otherwise starting the workers draws from the generator of the training
    # step, which a resumed run does at another iteration. Newer versions of Detectron2 pass a
    # generator themselves, so that it cannot be an argument above.
    loader.generator = torch.Generator()
    return loader


def train_sampler(loader: DataLoader) -> TrainingStream:
    """The sampler inside a loader made by :func:`build_train_loader`."""
    return loader.dataset.sampler


def build_test_loader(cfg: CfgNode, dataset_name: str, mapper: Mapper | None = None) -> DataLoader:
    """The loader of a test set: every image once, shared among the ranks.

    Images come in record order, in batches of TEST.IMS_PER_BATCH only such as need no padding to
    each other's size (see ``kdps.data.batching``).

    Raises:
        KdpsError: the set is missing or has no image.
    """
    records = DatasetCatalog.get(dataset_name)
    if not records:
        raise KdpsError(f"DATASETS.TEST: data set {dataset_name!r} has no image")
    if mapper is None:
        mapper = PersonSearchDatasetMapper(cfg, is_train=False)
    return records_loader(cfg, records, mapper)


def records_loader(cfg: CfgNode, records: list[dict[str, Any]], mapper: Mapper) -> DataLoader:
    """The loader of :func:`build_test_loader` for some records."""
    workers = cfg.DATALOADER.NUM_WORKERS
    if cfg.TEST.IMS_PER_BATCH == 1:
        return build_detection_test_loader(records, mapper=mapper, num_workers=workers)
    own = list(InferenceSampler(len(records)))
    sizes = padded_sizes(cfg, [records[index] for index in own])
    return DataLoader(
        MapDataset(DatasetFromList(records, copy=False), mapper),
        batch_sampler=EqualSizeBatches(own, sizes, cfg.TEST.IMS_PER_BATCH),
        num_workers=workers,
        collate_fn=trivial_batch_collator,
    )
