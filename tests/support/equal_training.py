# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Trainings in which a number of ranks changes nothing, but for the order of sums."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.layers import nonzero_tuple
from detectron2.modeling.proposal_generator import rpn
from detectron2.modeling.roi_heads import roi_heads
from torch import nn

from kdps.data.catalog import register_person_search
from kdps.engine.trainer import PersonSearchTrainer
from kdps.utils.testing_set import TINY_TRAIN, register_tiny_sets, tiny_training_cfg

UNEVEN_TRAIN = "uneven_train"
# People of the images of the uneven set, which are repeated.
_PEOPLE = (2, 1, 2, 0, 1)


def register_uneven_sets(folder: Path) -> None:
    """The tiny sets, and one to train on whose images show two people, one or nobody."""
    register_tiny_sets(folder, images=11)
    if UNEVEN_TRAIN in DatasetCatalog:
        DatasetCatalog.remove(UNEVEN_TRAIN)
        MetadataCatalog.remove(UNEVEN_TRAIN)
    register_person_search(UNEVEN_TRAIN, _uneven)


def _uneven() -> list[dict[str, Any]]:
    return [
        {**record, "annotations": record["annotations"][: _PEOPLE[i % len(_PEOPLE)]]}
        for i, record in enumerate(DatasetCatalog.get(TINY_TRAIN))
    ]


def equal_training_cfg(output_dir: Path, *opts: Any) -> CfgNode:
    """Five steps on images of one size, four at a time."""
    return tiny_training_cfg(
        output_dir,
        *("DATASETS.TRAIN", (UNEVEN_TRAIN,), "DATASETS.TEST", ()),
        *("INPUT.MIN_SIZE_TRAIN", (64,), "SOLVER.MAX_ITER", 5, "SOLVER.STEPS", ()),
        *("MODEL.PIXEL_STD", [57.0, 57.0, 57.0], "SOLVER.BASE_LR", 0.001),
        *("SOLVER.WARMUP_ITERS", 0, "TEST.EVAL_PERIOD", 0, "SOLVER.CHECKPOINT_PERIOD", 100),
        *opts,
    )


class FrozenNormsTrainer(PersonSearchTrainer):
    """Batch norms, which see the images of their rank only, stay as they are."""

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model = super().build_model(cfg)
        generator = torch.Generator().manual_seed(1)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(std=0.1, generator=generator)
                module.train(False)
                module.train = lambda mode=True, module=module: module
        return model


@contextmanager
def sampled_in_order() -> Iterator[None]:
    """Inside, the first anchors and proposals are taken instead of random ones."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (rpn, roi_heads):
            patch.setattr(module, "subsample_labels", _first_labels)
        yield


def _first_labels(
    labels: torch.Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """See :func:`detectron2.modeling.sampling.subsample_labels`."""
    positive = nonzero_tuple((labels != -1) & (labels != bg_label))[0]
    negative = nonzero_tuple(labels == bg_label)[0]
    positive = positive[: int(num_samples * positive_fraction)]
    return positive, negative[: num_samples - len(positive)]
