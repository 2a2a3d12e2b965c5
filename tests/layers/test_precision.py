# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from torch import nn

from kdps.layers.precision import half_precision, in_float32

CPU = torch.device("cpu")


@pytest.mark.parametrize("around", [torch.bfloat16, torch.float16])
def test_a_layer_in_float32(around):
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    x = torch.tensor([[1 + 2.0**-12]])
    with torch.autocast("cpu", around):
        # Both formats have fewer digits.
        assert layer(x).item() == 1
        found = in_float32(layer, x)
        assert in_float32(layer, x.to(around)).dtype == torch.float32
    assert found.dtype == torch.float32
    assert found.item() == x.item()


@pytest.mark.parametrize("around", [None, torch.float16])
def test_half_precision_is_never_what_is_around(around):
    layer = nn.Linear(1, 1)
    with torch.autocast("cpu", around or torch.bfloat16, enabled=around is not None):
        with half_precision(CPU, True):
            assert layer(torch.ones(1, 1)).dtype == torch.bfloat16
        with half_precision(CPU, False):
            assert layer(torch.ones(1, 1)).dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")
