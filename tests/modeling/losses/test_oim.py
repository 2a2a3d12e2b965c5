# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity_kit import recorded_tensors
from torch.nn import functional as F

from kdps.errors import KdpsError
from kdps.layers.lookup_table import LookupTable
from kdps.modeling.losses import OIMLoss, build_oim_loss, oim_loss
from kdps.utils.testing import tiny_cfg

TABLE = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
QUEUE = torch.tensor([[-1.0, 0.0]])
NOTHING = torch.zeros(0, 2)


def pids_of(*values):
    return torch.tensor(values, dtype=torch.int64)


def test_golden_value():
    x = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # Logits 2 * (0.6, 0.8, -0.6) with target 0 and 2 * (0, 1, 0) with target 1.
    first = math.log(math.exp(1.2) + math.exp(1.6) + math.exp(-1.2)) - 1.2
    second = math.log(1 + math.exp(2) + 1) - 2
    loss = oim_loss(x, pids_of(0, 1), TABLE, QUEUE, scale=2.0)
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_unlabelled_people_have_no_target():
    x = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    both = oim_loss(x, pids_of(0, -1), TABLE, QUEUE)
    one = oim_loss(x[:1], pids_of(0), TABLE, QUEUE)
    torch.testing.assert_close(both, one)


def test_empty_slots_are_masked_or_count_as_zero():
    x = torch.tensor([[1.0, 0.0]])
    table = torch.cat([TABLE, torch.zeros(3, 2)])
    queue = torch.zeros(2, 2)
    masked = oim_loss(x, pids_of(0), table, queue, scale=2.0)
    assert masked.item() == pytest.approx(math.log(math.exp(2) + 1) - 2, rel=1e-6)
    counted = oim_loss(x, pids_of(0), table, queue, scale=2.0, mask_empty=False)
    assert counted.item() == pytest.approx(math.log(math.exp(2) + 6) - 2, rel=1e-6)


def test_an_identity_seen_for_the_first_time_is_only_pushed_from_the_others():
    x = torch.tensor([[1.0, 0.0]], requires_grad=True)
    table = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    loss = oim_loss(x, pids_of(1), table, NOTHING, scale=2.0)
    assert loss.item() == pytest.approx(math.log(math.exp(2) + 1), rel=1e-6)
    loss.backward()
    assert x.grad[0, 0] > 0


def test_the_own_slot_of_somebody_new_may_count_as_filled():
    x = torch.tensor([[1.0, 0.0]], requires_grad=True)
    table = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    loss = oim_loss(x, pids_of(1), table, NOTHING, scale=2.0, own_empty=1.0)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)
    loss.backward()
    # 2 * softmax of the other slot; nothing pulls towards the own one.
    assert x.grad[0].tolist() == pytest.approx([1.0, 0.0])


def slow_masked_loss(embeddings, pids, table, queue, scale, own_empty):
    losses = []
    for x, pid in zip(embeddings.tolist(), pids.tolist(), strict=True):
        if pid < 0:
            continue
        logits = {}
        for slot, row in enumerate([*table.tolist(), *queue.tolist()]):
            if any(row):
                logits[slot] = scale * sum(a * b for a, b in zip(x, row, strict=True))
        logits.setdefault(pid, scale * own_empty)
        losses.append(math.log(sum(map(math.exp, logits.values()))) - logits[pid])
    return sum(losses) / max(len(losses), 1)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**16),
    st.lists(st.integers(-1, 3), min_size=0, max_size=6),
    st.lists(st.booleans(), min_size=7, max_size=7),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_masked_slots_as_reckoned_one_by_one(seed, pids, filled, own_empty):
    generator = torch.Generator().manual_seed(seed)
    memory = F.normalize(torch.randn(7, 3, generator=generator)) * torch.tensor(filled)[:, None]
    x = F.normalize(torch.randn(len(pids), 3, generator=generator)).requires_grad_()
    loss = oim_loss(x, pids_of(*pids), memory[:4], memory[4:], scale=5.0, own_empty=own_empty)
    expected = slow_masked_loss(x, pids_of(*pids), memory[:4], memory[4:], 5.0, own_empty)
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    loss.backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("own_empty", [0.0, 1.0])
def test_gradient_with_empty_slots(own_empty):
    memory = torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.0, 1.0]])
    x = torch.tensor([[0.8, 0.6], [1.0, 0.0]])
    moving = x.clone().requires_grad_()
    oim_loss(moving, pids_of(1, 0), memory[:2], memory[2:], 3.0, own_empty=own_empty).backward()
    for i, j in np.ndindex(2, 2):
        values = []
        for step in (1e-3, -1e-3):
            moved = x.double()
            moved[i, j] += step
            args = (moved, pids_of(1, 0), memory[:2], memory[2:], 3.0, own_empty)
            values.append(slow_masked_loss(*args))
        assert moving.grad[i, j].item() == pytest.approx(
            (values[0] - values[1]) / 2e-3, rel=1e-4, abs=1e-5
        )


def test_the_very_first_batch_has_a_loss_of_zero():
    x = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = oim_loss(x, pids_of(1), torch.zeros(2, 2), NOTHING)
    loss.backward()
    assert loss == 0
    assert torch.equal(x.grad, torch.zeros(1, 2))


@pytest.mark.parametrize("pids", [(-1, -1), ()])
def test_without_labelled_people_the_loss_is_zero_and_connected(pids):
    x = torch.randn(len(pids), 2, requires_grad=True)
    loss = oim_loss(x, pids_of(*pids), TABLE, QUEUE)
    loss.backward()
    assert loss == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("mask_empty", [False, True])
def test_gradient(mask_empty):
    generator = torch.Generator().manual_seed(0)
    x, table, queue = (F.normalize(torch.randn(n, 4, generator=generator)) for n in (5, 3, 2))
    table[1] = 0
    x.requires_grad_()
    pids = pids_of(0, 2, -1, 0, 1)
    loss = oim_loss(x, pids, table, queue, 10.0, mask_empty)
    (grad,) = torch.autograd.grad(loss, x)
    direction = torch.randn(5, 4, generator=generator)
    with torch.no_grad():
        step = 1e-2 * direction
        plus = oim_loss(x + step, pids, table, queue, 10.0, mask_empty)
        minus = oim_loss(x - step, pids, table, queue, 10.0, mask_empty)
    assert (grad * direction).sum().item() == pytest.approx((plus - minus).item() / 2e-2, rel=1e-2)
    assert torch.equal(grad[2], torch.zeros(4))


def test_autocast_does_not_touch_the_precision():
    generator = torch.Generator().manual_seed(0)
    x = F.normalize(torch.randn(6, 16, generator=generator)).requires_grad_()
    memory = LookupTable(4, 3, 16)
    memory.update(x.flip(0), pids_of(0, 1, 2, 3, -1, -1))
    pids = pids_of(0, 1, 2, 3, -1, 0)
    expected = oim_loss(x, pids, memory.table, memory.queue)
    with torch.autocast("cpu", torch.bfloat16):
        loss = oim_loss(x, pids, memory.table, memory.queue)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)


def test_memory_moves_once_per_step_and_backward_still_works():
    loss = OIMLoss(LookupTable(2, 2, 2))
    x = torch.tensor([[0.6, 0.8], [1.0, 0.0]], requires_grad=True)
    loss(x, pids_of(1, -1)).backward()
    torch.testing.assert_close(loss.memory.table, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
    torch.testing.assert_close(loss.memory.queue, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    loss(x, pids_of(1, -1)).backward()
    assert x.grad.isfinite().all()


def test_the_loss_is_formed_with_the_memory_before_the_step():
    loss = OIMLoss(LookupTable(2, 0, 2), scale=2.0)
    loss.memory.table.copy_(TABLE)
    x = torch.tensor([[0.0, 1.0]])
    expected = oim_loss(x, pids_of(0), TABLE, NOTHING, 2.0)
    torch.testing.assert_close(loss(x, pids_of(0)), expected)


def test_passes_that_are_no_training_steps_leave_the_memory_alone():
    loss = OIMLoss(LookupTable(2, 2, 2))
    x = torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    with torch.no_grad():
        loss(x, pids_of(1, -1))
    loss.eval()
    loss(x, pids_of(1, -1))
    assert not any(buffer.any() for buffer in loss.memory.buffers())


def test_identity_outside_the_table():
    loss = OIMLoss(LookupTable(0, 0, 2))
    with pytest.raises(KdpsError, match="NUM_PIDS"):
        loss(torch.tensor([[1.0, 0.0]]), pids_of(0))


def test_built_from_the_config():
    cfg = tiny_cfg("MODEL.REID_HEAD.OIM_SCALE", 7.0, "MODEL.REID_HEAD.OIM_NORMALISE", False)
    loss = build_oim_loss(cfg)
    assert loss.scale == 7.0
    assert not loss.memory.normalise
    assert loss.memory.table.shape == (5, 16)
    assert loss.memory.queue.shape == (4, 16)


def test_unknown_numbers_of_identities_make_no_memory():
    unknown = tiny_cfg("MODEL.REID_HEAD.NUM_PIDS", -1, "MODEL.REID_HEAD.QUEUE_SIZE", -1)
    memory = build_oim_loss(unknown).memory
    assert len(memory.table) == len(memory.queue) == 0


def test_focal_by_hand():
    x = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    first = math.exp(1.2) / (math.exp(1.2) + math.exp(1.6) + math.exp(-1.2))
    second = math.exp(2) / (math.exp(2) + 2)
    rows = [-((1 - p) ** 2) * math.log(p) for p in (first, second)]
    loss = oim_loss(x, pids_of(0, 1), TABLE, QUEUE, scale=2.0, focal_gamma=2.0)
    assert loss.item() == pytest.approx(sum(rows) / 2, rel=1e-5)


def test_a_scale_of_its_own_for_the_queue():
    x = torch.tensor([[0.6, 0.8]])
    loss = oim_loss(x, pids_of(0), TABLE, QUEUE, scale=2.0, queue_scale=5.0)
    expected = math.log(math.exp(1.2) + math.exp(1.6) + math.exp(-3.0)) - 1.2
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_mean_over_all_people():
    x = torch.tensor([[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]])
    labelled = oim_loss(x, pids_of(0, -1, -1), TABLE, QUEUE)
    people = oim_loss(x, pids_of(0, -1, -1), TABLE, QUEUE, average="people")
    torch.testing.assert_close(people, labelled / 3)


def test_gradient_of_focal_oim():
    generator = torch.Generator().manual_seed(0)
    x, table, queue = (F.normalize(torch.randn(n, 4, generator=generator)) for n in (5, 3, 2))
    x.requires_grad_()

    def loss(x):
        settings = {"queue_scale": 2.0, "focal_gamma": 2.0, "average": "people"}
        return oim_loss(x, pids_of(0, 2, -1, 0, 1), table, queue, 5.0, **settings)

    (grad,) = torch.autograd.grad(loss(x), x)
    direction = torch.randn(5, 4, generator=generator)
    with torch.no_grad():
        numeric = (loss(x + 1e-2 * direction) - loss(x - 1e-2 * direction)).item() / 2e-2
    assert (grad * direction).sum().item() == pytest.approx(numeric, rel=1e-2)


@given(
    pids=st.lists(st.integers(-1, 3), min_size=1, max_size=8),
    queue_size=st.integers(0, 3),
    gamma=st.sampled_from([0.0, 1.0, 2.0]),
    average=st.sampled_from(["labelled", "people"]),
    seed=st.integers(0, 1000),
)
def test_equals_going_through_the_rows(pids, queue_size, gamma, average, seed):
    generator = torch.Generator().manual_seed(seed)
    x, table, queue = (
        F.normalize(torch.randn(n, 4, generator=generator, dtype=torch.float64))
        for n in (len(pids), 4, queue_size)
    )
    total = 0.0
    for row, pid in zip(x, pids, strict=True):
        if pid < 0:
            continue
        known, unknown = (8 * (table @ row)).exp(), (3 * (queue @ row)).exp()
        p = (known[pid] / (known.sum() + unknown.sum())).item()
        total -= (1 - p) ** gamma * math.log(p)
    count = len(pids) if average == "people" else sum(pid >= 0 for pid in pids)
    loss = oim_loss(
        *(x.float(), pids_of(*pids), table.float(), queue.float(), 8.0),
        queue_scale=3.0,
        focal_gamma=gamma,
        average=average,
    )
    assert loss.item() == pytest.approx(total / max(count, 1), rel=1e-4, abs=1e-5)


def test_focal_oim_from_the_config():
    names = ("OIM_SCALE", "OIM_QUEUE_SCALE", "OIM_FOCAL_GAMMA", "OIM_AVERAGE", "OIM_QUEUE_DIMS")
    values = (15.0, 10.0, 2.0, "people", 6)
    pairs = zip(names, values, strict=True)
    opts = [x for name, value in pairs for x in (f"MODEL.REID_HEAD.{name}", value)]
    loss = build_oim_loss(tiny_cfg(*opts))
    built = (loss.scale, loss.queue_scale, loss.focal_gamma, loss.average, loss.memory.queue_dims)
    assert built == values
    assert build_oim_loss(tiny_cfg()).queue_scale is None


def test_unknown_average():
    with pytest.raises(KdpsError, match="OIM_AVERAGE is 'all'; it must be 'labelled' or 'people'"):
        build_oim_loss(tiny_cfg("MODEL.REID_HEAD.OIM_AVERAGE", "all"))


CASES = ["mixed", "no_labelled", "all_background", "only_labelled", "zero_memory", "queue_overrun"]


@pytest.mark.parametrize("case", CASES)
def test_equals_the_published_implementations(case, parity_dir):
    """Loss, gradient and memory of SeqNet, NAE and COAT (which agree bit for bit)."""
    recorded = recorded_tensors(parity_dir, "oim_losses", f"oim/{case}/")
    loss = OIMLoss(LookupTable(7, 5, 16), mask_empty=False)
    loss.memory.table.copy_(recorded["lut"])
    loss.memory.queue.copy_(recorded["cq"])
    loss.memory.pointer.copy_(recorded["header"])
    # Published: 0 is the background, 5555 unlabelled, identities count from 1.
    person = recorded["pids"] > 0
    pids = torch.where(recorded["pids"] == 5555, 0, recorded["pids"])[person] - 1
    x = recorded["inputs"].clone().requires_grad_()
    value = loss(x[person], pids)
    value.backward()
    # Without a labelled person the published loss is not a number; its gradient is zero.
    expected = recorded["loss"].nan_to_num(0.0)
    torch.testing.assert_close(value.detach(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x.grad, recorded["grad"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss.memory.table, recorded["lut_after"], rtol=0, atol=1e-6)
    torch.testing.assert_close(loss.memory.queue, recorded["cq_after"], rtol=0, atol=1e-6)
    assert loss.memory.pointer == recorded["header_after"]


OIMNET_CASES = [*(case for case in CASES if case != "queue_overrun"), "with_pid0"]


@pytest.mark.parametrize("case", OIMNET_CASES)
def test_equals_the_oim_net_of_pytorch(case, parity_dir):
    """Loss, gradient and memory; its table keeps no unit length."""
    recorded = recorded_tensors(parity_dir, "oim_losses", f"oimnet/{case}/")
    loss = OIMLoss(LookupTable(7, 5, 80, normalise=False), scale=10.0, mask_empty=False)
    loss.memory.table.copy_(recorded["lut"])
    loss.memory.queue.copy_(recorded["cq"])
    loss.memory.pointer.copy_(recorded["tail"])
    raw = recorded["raw_inputs"].clone().requires_grad_()
    # Published: -2 is the background, -1 unlabelled.
    person = recorded["pids"] > -2
    value = loss(F.normalize(raw)[person], recorded["pids"][person])
    value.backward()
    # Without a labelled person the published loss is not a number; its gradient is zero.
    torch.testing.assert_close(
        value.detach(), recorded["loss"].nan_to_num(0.0), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(raw.grad, recorded["grad_raw"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss.memory.table, recorded["lut_after"], rtol=0, atol=1e-6)
    # The public code writes no more than 64 numbers of an embedding into its queue.
    queue, written = loss.memory.queue, recorded["cq_after"]
    torch.testing.assert_close(queue[:, :64], written[:, :64], rtol=0, atol=1e-6)
    assert loss.memory.pointer == recorded["tail_after"]


def test_masking_changes_nothing_once_no_slot_is_empty(parity_dir):
    arrays = np.load(parity_dir / "oim_losses" / "expected.npz")
    table, queue, x = (
        torch.from_numpy(arrays[f"oim/only_labelled/{name}"]) for name in ("lut", "cq", "inputs")
    )
    pids = torch.from_numpy(arrays["oim/only_labelled/pids"]) - 1
    loss = oim_loss(x, pids, table, queue, mask_empty=True)
    assert loss.item() == pytest.approx(float(arrays["oim/only_labelled/loss"]), rel=1e-6)
