# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch

from kdps.layers.occluded_attention import Stripe, draw_stripe, exchange


def numbered(count, height, width):
    """Regions of two channels; each cell holds 100 * region + 10 * row + column, negated once."""
    region, row, column = torch.meshgrid(
        *(torch.arange(n, dtype=torch.float32) for n in (count, height, width)), indexing="ij"
    )
    cells = 100 * region + 10 * row + column
    return torch.stack([cells, -cells], dim=1)


def test_a_column_by_hand():
    regions = numbered(3, 2, 3)
    stripe = Stripe(torch.tensor([2, 0, 1]), slice(None), slice(1, 2))
    expected = torch.tensor(
        [
            [[0.0, 201, 2], [10, 211, 12]],
            [[100.0, 1, 102], [110, 11, 112]],
            [[200.0, 101, 202], [210, 111, 212]],
        ]
    )
    occluded = exchange(regions, stripe)
    assert torch.equal(occluded, torch.stack([expected, -expected], dim=1))
    assert torch.equal(regions, numbered(3, 2, 3)), "the regions themselves must stay"


def test_rows_by_hand():
    stripe = Stripe(torch.tensor([1, 0]), slice(1, 3), slice(None))
    occluded = exchange(numbered(2, 3, 2), stripe)[:, 0]
    assert occluded[0].tolist() == [[0, 1], [110, 111], [120, 121]]
    assert occluded[1].tolist() == [[100, 101], [10, 11], [20, 21]]


def test_gradients_go_to_where_the_values_came_from():
    regions = numbered(3, 2, 2).requires_grad_()
    weights = torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    stripe = Stripe(torch.tensor([1, 2, 0]), slice(0, 1), slice(None))
    (exchange(regions, stripe) * weights).sum().backward()
    expected = weights.clone()
    # The first row of region 1 is seen in region 0, that of 2 in 1, that of 0 in 2.
    expected[:, :, 0] = weights[[2, 0, 1], :, 0]
    assert torch.equal(regions.grad, expected)


@pytest.mark.parametrize("width", [1, 2])
def test_stripes_lie_everywhere_and_in_both_directions(width):
    regions = torch.zeros(4, 1, 5, 3)
    torch.manual_seed(0)
    drawn = [draw_stripe(regions, width) for _ in range(300)]
    rows = {(s.rows.start, s.rows.stop) for s in drawn if s.columns == slice(None)}
    columns = {(s.columns.start, s.columns.stop) for s in drawn if s.rows == slice(None)}
    assert rows == {(i, i + width) for i in range(6 - width)}
    assert columns == {(i, i + width) for i in range(4 - width)}
    share = sum(s.rows == slice(None) for s in drawn) / len(drawn)
    assert 0.4 < share < 0.6
    assert {tuple(sorted(s.partners.tolist())) for s in drawn} == {(0, 1, 2, 3)}
    assert len({tuple(s.partners.tolist()) for s in drawn}) > 20


def test_a_stripe_as_wide_as_the_region():
    regions = numbered(2, 2, 2)
    torch.manual_seed(0)
    stripe = draw_stripe(regions, 2)
    assert torch.equal(exchange(regions, stripe), regions[stripe.partners])


@pytest.mark.parametrize("count", [0, 1])
def test_none_or_one_region_stays_as_it_is(count):
    regions = numbered(count, 4, 3)
    assert torch.equal(exchange(regions, draw_stripe(regions, 1)), regions)
