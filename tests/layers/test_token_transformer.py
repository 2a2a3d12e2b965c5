# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdps.layers.occluded_attention import Stripe
from kdps.layers.token_transformer import FoldTokens, TokenTransformer


def make(kernel_size=3, **kwargs):
    torch.manual_seed(0)
    sizes = {"channels": 4, "token_dim": 6, "num_layers": 1, "num_heads": 2, "ffn_dim": 8}
    return TokenTransformer(kernel_size=kernel_size, **{**sizes, **kwargs})


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_folding_equals_fold_of_a_linear_layer(kernel_size):
    torch.manual_seed(0)
    fold = FoldTokens(token_dim=6, channels=4, kernel_size=kernel_size)
    tokens = torch.randn(2, 6, 5, 7)
    patches = fold.linear(tokens.flatten(2).transpose(1, 2)).transpose(1, 2)
    expected = F.fold(patches, (5, 7), kernel_size, padding=kernel_size // 2)
    torch.testing.assert_close(fold(tokens), expected)


def test_patches_make_a_round_trip():
    """Tokens that hold their patch give the map back, times the patches that cover each cell."""
    channels, k = 2, 3
    fold = FoldTokens(token_dim=channels * k * k, channels=channels, kernel_size=k)
    nn.init.eye_(fold.linear.weight)
    nn.init.zeros_(fold.linear.bias)
    x = torch.randn(3, channels, 4, 5, generator=torch.Generator().manual_seed(0))
    tokens = F.unfold(x, k, padding=1).unflatten(2, (4, 5))
    covered = torch.full((4, 5), 9.0)
    covered[[0, -1]] *= 2 / 3
    covered[:, [0, -1]] *= 2 / 3
    torch.testing.assert_close(fold(tokens), x * covered)


def test_bias_by_hand():
    fold = FoldTokens(token_dim=1, channels=1, kernel_size=3)
    nn.init.zeros_(fold.linear.weight)
    fold.linear.bias.data = torch.arange(9.0)
    # Of a map of one column only the middle columns of patches are inside: 1, 4 and 7.
    assert fold(torch.zeros(1, 1, 2, 1)).flatten().tolist() == [1.0 + 4, 4.0 + 7]


def test_the_shortcut_goes_around_everything():
    transformer = make()
    nn.init.zeros_(transformer.from_tokens.linear.weight)
    nn.init.zeros_(transformer.from_tokens.linear.bias)
    x = torch.randn(2, 4, 5, 3)
    assert torch.equal(transformer(x), x)


def test_tokens_attend_within_their_region_only():
    transformer, x = make().eval(), torch.randn(3, 4, 5, 3)
    with torch.no_grad():
        together = transformer(x)
        alone = torch.cat([transformer(region[None]) for region in x])
    torch.testing.assert_close(together, alone)


def test_a_stripe_of_tokens_is_exchanged():
    """With patches of one cell, exchanging tokens is exchanging the cells they describe."""
    transformer, x = make(kernel_size=1), torch.randn(2, 4, 5, 3)
    stripe = Stripe(torch.tensor([1, 0]), slice(None), slice(2, 3))
    occluded = x.clone()
    occluded[:, :, :, 2] = x[[1, 0], :, :, 2]
    # Around the tokens, the shortcut keeps each region's own cells.
    expected = transformer(occluded) - occluded + x
    torch.testing.assert_close(transformer(x, stripe), expected)


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_region(count):
    x = torch.randn(count, 4, 5, 3, requires_grad=True)
    out = make()(x)
    assert out.shape == x.shape
    out.sum().backward()


def test_layers_have_weights_of_their_own():
    transformer = make(num_layers=2)
    first, second = transformer.encoder
    assert not torch.equal(first.attention.query.weight, second.attention.query.weight)


def test_gradients_reach_everything():
    transformer = make()
    x = torch.randn(2, 4, 5, 3, requires_grad=True)
    # Not the sum: the norms leave it as it is, whatever their input.
    transformer(x).square().sum().backward()
    for name, parameter in [("x", x), *transformer.named_parameters()]:
        assert parameter.grad.isfinite().all(), name
        # A key's bias is added to the similarities of all tokens alike, and drops out.
        assert parameter.grad.abs().max() > 0 or name.endswith("key.bias"), name


def test_mixed_precision_stays_in_half():
    fold = FoldTokens(token_dim=6, channels=4, kernel_size=3)
    tokens = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        half = fold(tokens)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), fold(tokens), rtol=0.05, atol=0.05)
