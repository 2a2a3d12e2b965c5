# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransformLinear

from kdps.modeling.dense_heads import CellGrid, cell_losses
from kdps.modeling.dense_heads.cell_losses import centreness

TRANSFORM = Box2BoxTransformLinear(normalize_by_size=True)
CELLS = CellGrid(1, 2, stride=8).boxes(torch.device("cpu"))


def test_centreness_by_hand():
    distances = torch.tensor([[2.0, 2, 2, 2], [1, 3, 4, 3], [1, 2, 4, 8]])
    assert centreness(distances).tolist() == pytest.approx([1, 0.5, 0.25])


def test_by_hand():
    # One image; the first of two cells finds a person, a third is of a coarser map.
    logits = torch.tensor([[0.0, math.log(3), -math.log(3)]])
    # The first cell's point is (4, 4). It predicts (0, 0, 8, 16), the person is (-4, 0, 8, 8).
    deltas = torch.tensor([[[0.5, 0.5, 0.5, 1.5], [9, 9, 9, 9]]])
    found = torch.tensor([[True, False]])
    targets = torch.tensor([[-4.0, 0, 8, 8]])
    centre_logits = torch.tensor([[math.log(3), 5.0]])
    losses = cell_losses(logits, deltas, centre_logits, found, CELLS, targets, TRANSFORM)
    focal = 0.25 * 0.5**2 * math.log(2)
    focal += 0.75 * (0.75**2 * math.log(4) + 0.25**2 * math.log(4 / 3))
    assert losses["loss_cls"].item() == pytest.approx(focal / 2, rel=1e-5)
    # Intersection 64, union 128 + 96 - 64, enclosing 12 * 16.
    giou = 64 / 160 - (192 - 160) / 192
    assert losses["loss_box_reg"].item() == pytest.approx(1 - giou, rel=1e-5)
    # Distances 8, 4, 4, 4.
    target = math.sqrt(0.5)
    expected = -target * math.log(0.75) - (1 - target) * math.log(0.25)
    assert losses["loss_centreness"].item() == pytest.approx(expected, rel=1e-5)


def test_boxes_count_by_their_centreness():
    deltas = torch.tensor([[[0.5, 0.5, 0.5, 0.5], [2.0, 2, 2, 2]]])
    found = torch.ones(1, 2, dtype=torch.bool)
    # The first cell in the middle of its person, exactly found; the second aside of its own.
    targets = torch.tensor([[0.0, 0, 8, 8], [8, -12, 40, 20]])
    zero = torch.zeros(1, 2)
    losses = cell_losses(zero, deltas, zero, found, CELLS, targets, TRANSFORM)
    weight = math.sqrt(4 / 28)
    # (-4, -12, 28, 20) and (8, -12, 40, 20).
    giou = 20 / 44
    expected = weight * (1 - giou) / (1 + weight)
    assert losses["loss_box_reg"].item() == pytest.approx(expected, rel=1e-5)


def test_nobody_to_find():
    inputs = [torch.randn(2, n, requires_grad=True) for n in (5, 8, 2)]
    logits, deltas, centre_logits = inputs
    losses = cell_losses(
        logits,
        deltas.reshape(2, 2, 4),
        centre_logits,
        torch.zeros(2, 2, dtype=torch.bool),
        CELLS,
        torch.zeros(0, 4),
        TRANSFORM,
    )
    sum(losses.values()).backward()
    assert losses["loss_cls"] > 0
    assert losses["loss_box_reg"] == losses["loss_centreness"] == 0
    assert torch.equal(deltas.grad, torch.zeros_like(deltas))
    assert torch.equal(centre_logits.grad, torch.zeros_like(centre_logits))


def test_gradient():
    generator = torch.Generator().manual_seed(0)
    cells = CellGrid(3, 3, stride=8).boxes(torch.device("cpu"))
    found = torch.zeros(2, 9, dtype=torch.bool)
    found[0, 4], found[1, :2] = True, True
    targets = torch.tensor([[2.0, 1, 20, 23], [-3, 0, 12, 9], [0, -6, 20, 11]])

    def losses(x):
        logits, deltas, centre = x.split([12, 36, 9], dim=1)
        named = cell_losses(
            *(logits, deltas.reshape(2, 9, 4) + 1.3, centre, found, cells, targets, TRANSFORM)
        )
        return sum(named.values())

    x = (0.3 * torch.randn(2, 57, generator=generator)).requires_grad_()
    (grad,) = torch.autograd.grad(losses(x), x)
    direction = torch.randn(2, 57, generator=generator)
    with torch.no_grad():
        numeric = (losses(x + 1e-2 * direction) - losses(x - 1e-2 * direction)).item() / 2e-2
    assert (grad * direction).sum().item() == pytest.approx(numeric, rel=1e-2)
