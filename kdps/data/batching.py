# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Test batches of images that need no padding to each other's size.

A network sees what an image is padded with beyond its first layer, so that an image padded to the
size of a larger one gets slightly other boxes and embeddings than alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from torch.utils.data import Sampler

from kdps.data.dataset_mapper import build_augmentation
from kdps.data.datasets.images import probe_image


class EqualSizeBatches(Sampler[list[int]]):
    """Batches of indices of equally large inputs; an index stands in one batch.

    Batches are as full as the sizes allow and come in the order of their first index.
    """

    def __init__(
        self, indices: Sequence[int], sizes: Sequence[tuple[int, int]], batch_size: int
    ) -> None:
        """
        Args:
            indices: what to batch.
            sizes: (height, width) of the input of each index.
            batch_size: the most indices of a batch.
        """
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, size in zip(indices, sizes, strict=True):
            groups[size].append(index)
        batches = [
            group[start : start + batch_size]
            for group in groups.values()
            for start in range(0, len(group), batch_size)
        ]
        self._batches = sorted(batches, key=lambda batch: batch[0])

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)


def padded_sizes(cfg: CfgNode, records: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """(height, width) of each record's network input at test time, padded.

    Sizes that a record does not know are read from the head of its image. Where the padding is left
    to the backbone (``MODEL.PERSON_SEARCH.SIZE_DIVISIBILITY`` 0) they are those before it.

    Raises:
        KdpsError: an image cannot be read.
    """
    augmentations = build_augmentation(cfg, is_train=False)
    divisor = max(1, cfg.MODEL.PERSON_SEARCH.SIZE_DIVISIBILITY)
    known: dict[tuple[int, int], tuple[int, int]] = {}
    sizes = []
    for record in records:
        if "height" in record and "width" in record:
            size = record["height"], record["width"]
        else:
            size = probe_image(record["file_name"])
        if size not in known:
            height, width = _resized(augmentations, *size)
            known[size] = -(-height // divisor) * divisor, -(-width // divisor) * divisor
        sizes.append(known[size])
    return sizes


def _resized(
    augmentations: Sequence[T.Augmentation | T.Transform], height: int, width: int
) -> tuple[int, int]:
    for augmentation in augmentations:
        # An image of this shape that takes no memory.
        image = np.broadcast_to(np.zeros((1, 1, 3), dtype=np.uint8), (height, width, 3))
        transform = augmentation
        if isinstance(augmentation, T.Augmentation):
            transform = augmentation.get_transform(image)
        corner = transform.apply_coords(np.array([[width, height]], dtype=np.float64))
        width, height = np.rint(corner[0]).astype(int).tolist()
    return height, width
