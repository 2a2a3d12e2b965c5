# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch
from torch import nn

from kdps.layers.token_encoder import SelfAttention, TokenEncoderLayer


def identity(linear):
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)


def test_attention_of_two_tokens_by_hand():
    attention = SelfAttention(dim=2, num_heads=1)
    for linear in attention.children():
        identity(linear)
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    # Similarities over the root of 2: of the first token 1 and 0, of the second 0 and 4.
    first = 1 / (1 + math.exp(-1 / math.sqrt(2)))
    second = 1 / (1 + math.exp(-4 / math.sqrt(2)))
    expected = torch.tensor([[[first, 2 * (1 - first)], [1 - second, 2 * second]]])
    torch.testing.assert_close(attention(tokens), expected)


def test_equals_the_attention_of_pytorch():
    torch.manual_seed(0)
    ours, theirs = SelfAttention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(
            torch.cat([p.weight for p in (ours.query, ours.key, ours.value)])
        )
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in (ours.query, ours.key, ours.value)]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    tokens = torch.randn(4, 5, 12)
    torch.testing.assert_close(ours(tokens), theirs(tokens, tokens, tokens)[0])


def test_shortcuts_start_behind_the_first_norm():
    layer = TokenEncoderLayer(dim=2, num_heads=1, ffn_dim=4)
    # Without attention and feed-forward network only the shortcuts are left.
    for linear in (layer.attention.output, layer.ffn[2]):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    tokens = torch.tensor([[[3.0, 7.0], [5.0, 1.0]]])
    torch.testing.assert_close(layer(tokens), torch.tensor([[[-1.0, 1.0], [1.0, -1.0]]]))


def test_the_feed_forward_network_sees_normalised_tokens():
    layer = TokenEncoderLayer(dim=2, num_heads=1, ffn_dim=2)
    nn.init.zeros_(layer.attention.output.weight)
    layer.attention.output.bias.data = torch.tensor([0.0, 10.0])
    identity(layer.ffn[0])
    identity(layer.ffn[2])
    # (1, -1) after the first norm, (1, 9) after attention, (-1, 1) in the network, ReLU (0, 1).
    out = layer(torch.tensor([[[2.0, 0.0]]]))
    torch.testing.assert_close(out, torch.tensor([[[1.0, 10.0]]]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_region(count):
    assert TokenEncoderLayer(8, 2, 16)(torch.randn(count, 6, 8)).shape == (count, 6, 8)


def test_gradients():
    torch.manual_seed(0)
    layer = TokenEncoderLayer(4, 2, 8).double()
    tokens = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, tokens)
