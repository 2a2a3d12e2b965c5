# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parity_kit import recorded_tensors
from torch.nn import functional as F

from kdps.layers.lookup_table import LookupTable
from kdps.modeling.losses import OIMLoss, batch_hard_triplet_loss, oim_loss, table_triplet_loss

# Distances: 0 to 1 is 5, 0 to 2 is 3, 1 to 2 is 4.
ROWS = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 0.0]])


def pids_of(*pids):
    return torch.tensor(pids, dtype=torch.int64)


def test_by_hand():
    loss = batch_hard_triplet_loss(ROWS, pids_of(7, 7, 2), margin=0.5)
    # Row 0: 5 - 3, row 1: 5 - 4, row 2, its own positive: 0 - 3.
    assert loss.item() == pytest.approx((2.5 + 1.5 + 0.0) / 3, rel=1e-5)


def test_people_without_identity_take_no_part():
    rows = torch.cat([ROWS, torch.tensor([[3.0, 3.9]])])
    with_them = batch_hard_triplet_loss(rows, pids_of(7, 7, 2, -1), margin=0.5)
    torch.testing.assert_close(
        with_them, batch_hard_triplet_loss(ROWS, pids_of(7, 7, 2), margin=0.5)
    )


@pytest.mark.parametrize("pids", [(), (-1, -1), (3, 3), (3, -1)], ids=str)
def test_less_than_two_identities_give_zero_connected(pids):
    x = torch.randn(len(pids), 4, requires_grad=True)
    loss = batch_hard_triplet_loss(x, pids_of(*pids))
    loss.backward()
    assert loss == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_rows_of_the_table_by_hand():
    table = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    x = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    # Each of 0, 1 and their rows: hardest positive and negative distance.
    near, far = math.sqrt(0.04 + 0.36), math.sqrt(0.64 + 0.16)
    expected = [
        math.sqrt(2) - 0.0,  # person 0 lies on the row of identity 1
        near - near,  # person 0 is as near as the row of identity 1
        math.sqrt(2) - far,  # the row of identity 0
        near - 0.0,
    ]
    loss = table_triplet_loss(x, pids_of(0, 1), table, margin=0.3)
    assert loss.item() == pytest.approx(sum(max(0.3 + e, 0) for e in expected) / 4, rel=1e-5)


def test_identity_zero_brings_its_row_as_all_others_do():
    generator = torch.Generator().manual_seed(0)
    table = F.normalize(torch.randn(3, 8, generator=generator))
    x = F.normalize(torch.randn(3, 8, generator=generator))
    first = table_triplet_loss(x, pids_of(0, 1, 2), table)
    renumbered = table_triplet_loss(x, pids_of(1, 2, 0), table.roll(1, dims=0))
    torch.testing.assert_close(first, renumbered)


@pytest.mark.parametrize("mask_empty", [False, True])
def test_empty_rows(mask_empty):
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = table_triplet_loss(x, pids_of(0, 1), torch.zeros(2, 2), 0.3, mask_empty)
    if mask_empty:
        torch.testing.assert_close(loss, batch_hard_triplet_loss(x, pids_of(0, 1), 0.3))
    else:
        # The zero vector is 1 from both persons, and nothing from the other zero vector.
        expected = (2 * 0.3 + 2 * 1.3) / 4
        assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_autocast_does_not_touch_the_precision():
    x = F.normalize(torch.randn(6, 16, generator=torch.Generator().manual_seed(0)))
    pids = pids_of(0, 0, 1, 1, 2, -1)
    expected = batch_hard_triplet_loss(x, pids)
    with torch.autocast("cpu", torch.bfloat16):
        loss = batch_hard_triplet_loss(x, pids)
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)


def test_gradient():
    generator = torch.Generator().manual_seed(1)
    x, table = (
        F.normalize(torch.randn(n, 5, generator=generator, dtype=torch.float64)) for n in (6, 3)
    )
    pids = pids_of(0, 0, 1, 2, -1, 1)

    def loss(x):
        return table_triplet_loss(x.float(), pids, table.float(), margin=1.0)

    x.requires_grad_()
    (grad,) = torch.autograd.grad(loss(x), x)
    direction = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    step = 1e-3 * direction
    with torch.no_grad():
        numeric = (loss(x + step) - loss(x - step)).item() / 2e-3
    assert (grad * direction).sum().item() == pytest.approx(numeric, rel=1e-2)
    assert torch.equal(grad[4], torch.zeros(5, dtype=torch.float64))


def slow_reference(rows, pids, margin):
    """Every pair in turn."""
    losses = []
    for i, anchor in enumerate(rows):
        if pids[i] < 0:
            continue
        distances = [
            (np.linalg.norm(anchor - r), p) for r, p in zip(rows, pids, strict=True) if p >= 0
        ]
        if len({p for _, p in distances}) < 2:
            return 0.0
        positive = max(d for d, p in distances if p == pids[i])
        negative = min(d for d, p in distances if p != pids[i])
        losses.append(max(0.0, margin + positive - negative))
    return float(np.mean(losses)) if losses else 0.0


@given(
    pids=st.lists(st.integers(-1, 3), max_size=10),
    margin=st.floats(0.0, 2.0),
    seed=st.integers(0, 1000),
)
def test_equals_going_through_all_pairs(pids, margin, seed):
    rows = np.random.default_rng(seed).standard_normal((len(pids), 4))
    loss = batch_hard_triplet_loss(torch.from_numpy(rows).float(), pids_of(*pids), margin)
    assert loss.item() == pytest.approx(slow_reference(rows, pids, margin), abs=1e-4)


CASES = ["mixed", "no_labelled", "only_labelled", "zero_memory", "with_pid0"]


@pytest.mark.parametrize("case", CASES)
def test_equals_the_published_toim(case, parity_dir):
    """Losses, gradient and memory of AlignPS on CUHK-SYSU."""
    recorded = recorded_tensors(parity_dir, "oim_losses", f"alignps/{case}/")
    pids, people = recorded["pids"], len(recorded["pids"])
    settings = {"mask_empty": False, "focal_gamma": 2.0}
    memory = LookupTable(7, 5, 80, normalise=False, queue_dims=64)
    loss = OIMLoss(memory, 10.0, average="people", **settings)
    memory.table.copy_(recorded["lut"])
    memory.queue.copy_(recorded["cq"])
    memory.pointer.copy_(recorded["tail"])
    raw = recorded["raw_inputs"].clone().requires_grad_()
    x = F.normalize(raw)
    # There, identity 0 brings no row of the table.
    brought = pids[pids > 0]
    triplet = batch_hard_triplet_loss(
        torch.cat([x, memory.table[brought]]), torch.cat([pids, brought])
    )
    if case != "with_pid0":
        torch.testing.assert_close(
            table_triplet_loss(x, pids, memory.table, mask_empty=False), triplet
        )
    labelled = oim_loss(x, pids, memory.table, memory.queue, 10.0, **settings)
    oim = loss(x, pids)
    (triplet + oim * people).backward()

    close = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(triplet.detach(), recorded["loss_tri"], **close)
    torch.testing.assert_close(oim.detach(), recorded["loss_oim_rows"].mean(), **close)
    # The mean over labelled people, of whom there may be none.
    expected = recorded["loss_oim_mean"].nan_to_num(0.0)
    torch.testing.assert_close(labelled.detach(), expected, **close)
    torch.testing.assert_close(
        raw.grad, recorded["grad_raw_sum_oim_plus_tri"], rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(memory.table, recorded["lut_after"], rtol=0, atol=1e-6)
    torch.testing.assert_close(memory.queue, recorded["cq_after"], rtol=0, atol=1e-6)
    assert memory.pointer == recorded["tail_after"]
