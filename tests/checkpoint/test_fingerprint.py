# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from torch import nn

from kdps.checkpoint.fingerprint import weights_hash


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_equal_weights_have_equal_hashes():
    assert weights_hash(make_model()) == weights_hash(make_model())
    assert len(weights_hash(make_model())) == 64


@pytest.mark.parametrize("name", ["0.weight", "1.running_mean", "1.num_batches_tracked"])
def test_every_value_counts(name):
    model = make_model()
    before = weights_hash(model)
    model.state_dict()[name].add_(1)
    assert weights_hash(model) != before


def test_names_and_types_count():
    model = make_model()
    assert weights_hash(nn.ModuleDict({"a": model})) != weights_hash(model)
    assert weights_hash(make_model().bfloat16()) != weights_hash(model)
