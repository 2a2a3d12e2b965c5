# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch
from torch import nn

from kdps.modeling.losses import IdentitySoftmaxLoss


def make(num_pids=3, dim=2):
    torch.manual_seed(0)
    return IdentitySoftmaxLoss(num_pids, dim)


def test_golden_loss():
    loss = make(num_pids=2)
    loss.neck.eps = 1e-12
    nn.init.eye_(loss.classifier.weight)
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    # Normalised over all four people these are (1, -1) and (-1, 1).
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    value = loss(embeddings, torch.tensor([0, -1, -1, 0]))
    assert value.item() == pytest.approx((right + wrong) / 2)
    assert loss(embeddings, torch.tensor([0, 1, 0, 1])).item() == pytest.approx(right)


def test_unlabelled_people_count_in_the_statistics_only():
    loss, generator = make(), torch.Generator().manual_seed(1)
    embeddings = torch.randn(5, 2, generator=generator, requires_grad=True)
    pids = torch.tensor([2, -1, 0, -1, -1])
    loss(embeddings, pids).backward()
    torch.testing.assert_close(loss.neck.running_mean, 0.1 * embeddings.detach().mean(dim=0))
    normalised = nn.functional.batch_norm(embeddings, None, None, training=True)
    logits = loss.classifier(normalised[pids >= 0])
    (expected,) = torch.autograd.grad(
        nn.functional.cross_entropy(logits, torch.tensor([2, 0])), embeddings
    )
    torch.testing.assert_close(embeddings.grad, expected)


@pytest.mark.parametrize("pids", [[], [-1], [1], [-1, -1]], ids=str)
def test_few_people_and_nobody_with_an_identity(pids):
    loss = make()
    embeddings = torch.ones(len(pids), 2, requires_grad=True)
    value = loss(embeddings, torch.tensor(pids, dtype=torch.int64))
    value.backward()
    assert value.item() == (pytest.approx(math.log(3), rel=1e-2) if pids == [1] else 0)
    # With several processes every parameter must take part in every step.
    for parameter in (loss.neck.weight, loss.classifier.weight):
        assert parameter.grad.isfinite().all()
    assert all(buffer.isfinite().all() for buffer in loss.buffers())
    # One person has no statistics.
    assert loss.neck.num_batches_tracked == (len(pids) > 1)


def test_the_neck_has_no_shift():
    loss = make()
    assert not loss.neck.bias.requires_grad
    assert not loss.neck.bias.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_mixed_precision_computes_in_float32(dtype):
    embeddings, pids = torch.randn(4, 2), torch.tensor([0, 1, 2, -1])
    expected = make()(embeddings, pids)
    with torch.autocast("cpu", dtype):
        assert torch.equal(make()(embeddings, pids), expected)
