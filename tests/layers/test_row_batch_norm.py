# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from torch import nn

from kdps.layers.row_batch_norm import RowBatchNorm


def make(kind=RowBatchNorm):
    norm = kind(2, eps=1e-12)
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor([1.0, -1.0]))
        norm.running_var.copy_(torch.tensor([4.0, 0.25]))
        norm.weight.copy_(torch.tensor([2.0, 1.0]))
        norm.bias.copy_(torch.tensor([0.5, 0.0]))
    return norm


@pytest.mark.parametrize("train", [True, False])
def test_several_rows_are_normalised_as_by_pytorch(train):
    rows = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    ours, theirs = make().train(train), make(nn.BatchNorm1d).train(train)
    assert torch.equal(ours(rows), theirs(rows))
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


@pytest.mark.parametrize("train", [True, False])
def test_a_single_row_is_normalised_by_the_running_statistics(train):
    norm = make().train(train)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    torch.testing.assert_close(norm(torch.tensor([[5.0, 0.0]])), torch.tensor([[4.5, 2.0]]))
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("count", [0, 1])
def test_gradients_of_few_rows(count):
    norm, rows = make().train(), torch.ones(count, 2, requires_grad=True)
    norm(rows).sum().backward()
    assert norm.weight.grad.isfinite().all()
    assert norm.bias.grad.tolist() == [count, count]
    torch.testing.assert_close(rows.grad, torch.tensor([[1.0, 2.0]] * count).reshape(count, 2))
