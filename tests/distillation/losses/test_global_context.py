# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Global context of a feature map."""

import math

import torch

from kdps.distillation.losses.global_context import GlobalContext


def block():
    """A block that says the mean that it looks at: all behind the attention keeps its input."""
    context = GlobalContext(2)
    context.attention.weight.data = torch.tensor([[1.0, 0.0]])
    context.transform = torch.nn.Identity()
    return context


def test_by_hand():
    x = torch.tensor([[[[0.0, math.log(3.0)]], [[4.0, 8.0]]]])
    # The first channel is what is looked at: a quarter of the first cell, three of the second.
    expected = torch.tensor([[0.75 * math.log(3.0), 7.0]])
    assert torch.allclose(block()(x, torch.ones(1, 1, 2, dtype=torch.bool)), expected)


def test_padding_says_nothing():
    x = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    valid[..., 3] = False
    inside = block()(x[..., :3], valid[..., :3])
    assert torch.allclose(block()(x, valid), inside, atol=1e-6)


def test_says_nothing_at_first():
    x = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(0))
    said = GlobalContext(6)(x, torch.ones(2, 3, 4, dtype=torch.bool))
    assert said.shape == (2, 6)
    assert not said.any()
