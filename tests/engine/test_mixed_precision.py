# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from unittest import mock

import pytest
import torch
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.utils.events import EventStorage
from short_training import assert_equal, train, weights
from torch import nn

from kdps.config import get_cfg
from kdps.engine.mixed_precision import BFloat16Trainer, build_step_trainer
from kdps.errors import KdpsError
from kdps.utils.testing_set import tiny_training_cfg

BFLOAT16 = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "bfloat16")


class Product(nn.Module):
    """Losses by name from a number; notes the precision of what it computes."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        self.seen = []

    def forward(self, x):
        y = self.layer(x)
        self.seen.append(y.dtype)
        return {"loss_one": y.float().sum(), "loss_two": 2 * y.float().sum()}


def step_of(trainer):
    with EventStorage():
        trainer.run_step()


def test_a_step_computes_in_bfloat16_and_keeps_float32():
    model = Product()
    nn.init.constant_(model.layer.weight, 5.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125)
    step_of(BFloat16Trainer(model, [torch.ones(1, 1)], optimizer))
    assert model.seen == [torch.bfloat16]
    # The gradient is 1 + 2.
    assert model.layer.weight.item() == 5 - 0.125 * 3
    assert model.layer.weight.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


def test_the_gradient_of_the_step_before_is_forgotten():
    model = Product()
    model.layer.weight.grad = torch.full((1, 1), 100.0)
    before = model.layer.weight.item()
    step_of(BFloat16Trainer(model, [torch.ones(1, 1)], torch.optim.SGD(model.parameters(), lr=1.0)))
    assert model.layer.weight.item() == pytest.approx(before - 3)


@pytest.mark.parametrize(
    ("opts", "kind"),
    [
        ((), SimpleTrainer),
        (("SOLVER.AMP.ENABLED", True), AMPTrainer),
        (BFLOAT16, BFloat16Trainer),
        (BFLOAT16[2:], SimpleTrainer),
    ],
    ids=["full", "float16", "bfloat16", "off"],
)
def test_the_trainer_of_a_precision(opts, kind):
    cfg = get_cfg()
    cfg.merge_from_list(list(opts))
    model = Product()
    made = build_step_trainer(cfg, model, [], torch.optim.SGD(model.parameters(), lr=1.0))
    assert type(made) is kind


def test_a_checkpoint_without_a_scale_is_refused_by_float16(tmp_path):
    train(tiny_training_cfg(tmp_path), stop_after=4)
    with (
        mock.patch("kdps.engine.trainer.AMPTrainer", SimpleTrainer),
        pytest.raises(KdpsError, match=r"SOLVER.AMP: float16 needs the scale of the loss"),
    ):
        train(tiny_training_cfg(tmp_path), resume=True)


def test_a_resumed_run_in_bfloat16_equals_an_uninterrupted_one(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    opts = (*BFLOAT16, "TEST.PRECISION", "bfloat16")
    train(tiny_training_cfg(whole, *opts))
    train(tiny_training_cfg(parts, *opts), stop_after=4)
    train(tiny_training_cfg(parts, *opts), resume=True)
    assert_equal(weights(parts), weights(whole))
    full = tmp_path / "full"
    train(tiny_training_cfg(full))
    assert weights(full)["model"].keys() == weights(whole)["model"].keys()
    with pytest.raises(AssertionError):
        assert_equal(weights(full)["model"], weights(whole)["model"])
