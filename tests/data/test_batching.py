# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdps.data.batching import EqualSizeBatches, padded_sizes
from kdps.data.dataset_mapper import RESIZES, PersonSearchDatasetMapper
from kdps.errors import KdpsError
from kdps.utils.testing import tiny_cfg


def test_batches_come_by_their_first_index() -> None:
    sizes = [(1, 1), (2, 2), (1, 1), (1, 1), (2, 2), (1, 1)]
    batches = EqualSizeBatches([3, 4, 5, 6, 7, 8], sizes, 3)
    assert list(batches) == [[3, 5, 6], [4, 7], [8]]
    assert len(batches) == 3


@given(st.lists(st.integers(0, 3)), st.integers(1, 5))
def test_each_index_is_in_one_batch_of_its_size(sizes: list[int], batch_size: int) -> None:
    batches = list(EqualSizeBatches(range(len(sizes)), [(s, s) for s in sizes], batch_size))
    assert sorted(index for batch in batches for index in batch) == list(range(len(sizes)))
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        assert len({sizes[index] for index in batch}) == 1
    for size in set(sizes):
        partial = [b for b in batches if sizes[b[0]] == size and len(b) < batch_size]
        assert len(partial) <= 1


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(("divisor", "known"), [(0, True), (32, False)])
def test_sizes_are_those_of_the_mapped_images(
    tmp_path: Path, resize: str, divisor: int, known: bool
) -> None:
    cfg = tiny_cfg(
        *("INPUT.RESIZE", resize, "INPUT.MIN_SIZE_TEST", 50, "INPUT.MAX_SIZE_TEST", 97),
        *("MODEL.PERSON_SEARCH.SIZE_DIVISIBILITY", divisor),
    )
    records: list[dict[str, Any]] = []
    for number, (h, w) in enumerate([(64, 80), (41, 30), (33, 97), (50, 50)]):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), np.zeros((h, w, 3), np.uint8))
        size = {"height": h, "width": w} if known else {}
        records.append({"file_name": str(path), "image_id": path.name, **size})
    mapper = PersonSearchDatasetMapper(cfg, is_train=False)
    shapes = [mapper(record)["image"].shape[1:] for record in records]
    step = divisor or 1
    expected = [tuple(-(-side // step) * step for side in shape) for shape in shapes]
    assert padded_sizes(cfg, records) == expected
    assert ("height" in records[0]) == known


def test_an_image_without_a_size_has_to_be_there() -> None:
    with pytest.raises(KdpsError, match=r"image none\.png does not exist"):
        padded_sizes(tiny_cfg(), [{"file_name": "none.png"}])
