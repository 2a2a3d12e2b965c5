# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch

from kdps.checkpoint.prw_table import PUBLIC_ROWS, renumber_prw_table

# Of the persons in PRW's training frames.
NUMBERS = [*range(1, 479), *range(480, 484), 932]


@pytest.mark.parametrize("first", [0, 1])
def test_each_identity_keeps_its_row(first):
    table = torch.randn(PUBLIC_ROWS, 3, generator=torch.Generator().manual_seed(0))
    ours = renumber_prw_table(table, first)
    assert ours.shape == (len(NUMBERS), 3)
    for row, number in enumerate(NUMBERS):
        expected = table[number - first] if number - first < PUBLIC_ROWS else torch.zeros(3)
        assert torch.equal(ours[row], expected)
    # 932, and 483 or 482 to 483.
    assert int((ours == 0).all(dim=1).sum()) == 3 - first
