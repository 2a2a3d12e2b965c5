# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from kdps.errors import KdpsError
from kdps.layers.lookup_table import LookupTable


def rows(*values):
    return torch.tensor(values, dtype=torch.float32)


def unit_rows(count, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=generator))


def reference_update(memory, embeddings, pids):
    """One row after another, as the published code does it."""
    table, queue, pointer = memory.table.clone(), memory.queue.clone(), int(memory.pointer)
    for x, pid in zip(embeddings, pids.tolist(), strict=True):
        if pid >= 0:
            new = memory.momentum * table[pid] + (1 - memory.momentum) * x
            table[pid] = new / new.norm() if memory.normalise else new
        elif len(queue):
            queue[pointer] = x
            pointer = (pointer + 1) % len(queue)
    return table, queue, pointer


def test_first_embedding_of_an_identity_becomes_its_row():
    memory = LookupTable(3, 0, 2)
    memory.update(rows([0.6, 0.8]), torch.tensor([1]))
    torch.testing.assert_close(memory.table, rows([0, 0], [0.6, 0.8], [0, 0]))


def test_repeated_identity_is_updated_once_per_row_in_order():
    memory = LookupTable(1, 0, 2, momentum=0.5)
    memory.table[0] = torch.tensor([1.0, 0.0])
    memory.update(rows([0, 1], [0, 1]), torch.tensor([0, 0]))
    # (1, 0) -> (1, 1)/sqrt 2 -> (0.7071, 1.7071)/1.8478
    torch.testing.assert_close(memory.table, rows([0.382683, 0.923880]))


def test_rows_keep_no_unit_length_where_they_need_not():
    memory = LookupTable(1, 0, 2, momentum=0.5, normalise=False)
    memory.update(rows([0, 1], [1, 0]), torch.tensor([0, 0]))
    torch.testing.assert_close(memory.table, rows([0.5, 0.25]))


def test_unlabelled_people_go_to_the_queue_in_order_and_around():
    memory = LookupTable(1, 3, 2)
    memory.update(rows([1, 0], [0, 1]), torch.tensor([-1, -1]))
    assert memory.pointer == 2
    memory.update(rows([-1, 0], [0, -1]), torch.tensor([-1, -1]))
    assert memory.pointer == 1
    torch.testing.assert_close(memory.queue, rows([0, -1], [0, 1], [-1, 0]))
    assert memory.table.count_nonzero() == 0


def test_queue_keeps_the_last_of_more_people_than_slots():
    memory = LookupTable(0, 2, 2)
    memory.update(rows([1, 0], [0, 1], [-1, 0]), torch.full((3,), -1))
    assert memory.pointer == 1
    torch.testing.assert_close(memory.queue, rows([-1, 0], [0, 1]))


def test_queue_of_length_zero():
    memory = LookupTable(1, 0, 2)
    memory.update(rows([1, 0], [0, 1]), torch.tensor([-1, 0]))
    assert memory.pointer == 0
    torch.testing.assert_close(memory.table, rows([0, 1]))


def test_the_queue_may_get_the_first_numbers_of_an_embedding_only():
    memory = LookupTable(1, 2, 3, queue_dims=2)
    memory.queue.fill_(9.0)
    memory.update(rows([1, 2, 3], [4, 5, 6]), torch.tensor([-1, 0]))
    torch.testing.assert_close(memory.queue, rows([1, 2, 9], [9, 9, 9]))
    assert memory.table[0, 2] > 0


def test_nobody_changes_nothing():
    memory = LookupTable(2, 2, 2)
    memory.update(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    assert not any(buffer.any() for buffer in memory.buffers())


def test_half_precision_rows_keep_a_float32_memory():
    memory = LookupTable(1, 1, 2)
    memory.update(rows([0.6, 0.8], [1, 0]).half(), torch.tensor([0, -1]))
    assert memory.table.dtype == memory.queue.dtype == torch.float32
    assert memory.table.norm().item() == pytest.approx(1.0, abs=1e-6)


def test_update_carries_no_gradient():
    memory = LookupTable(1, 1, 2)
    embeddings = rows([0.6, 0.8], [1, 0]).requires_grad_()
    memory.update(embeddings, torch.tensor([0, -1]))
    assert not memory.table.requires_grad
    assert not memory.queue.requires_grad


def test_unknown_identity_is_named():
    memory = LookupTable(3, 1, 2)
    with pytest.raises(KdpsError, match=r"identity 3 is outside .* 3 rows.*NUM_PIDS"):
        memory.check_pids(torch.tensor([-1, 3, 0]))
    memory.check_pids(torch.tensor([-1, 2, 0]))
    memory.check_pids(torch.zeros(0, dtype=torch.int64))


def test_state_holds_table_queue_and_pointer():
    memory = LookupTable(2, 3, 2)
    memory.update(rows([1, 0], [0, 1]), torch.tensor([1, -1]))
    other = LookupTable(2, 3, 2)
    other.load_state_dict(memory.state_dict())
    for x in (memory, other):
        x.update(rows([0, -1]), torch.tensor([-1]))
    assert other.pointer == memory.pointer == 2
    torch.testing.assert_close(other.queue, memory.queue)


@given(
    batches=st.lists(st.lists(st.integers(-1, 3), max_size=9), min_size=1, max_size=3),
    queue_size=st.integers(0, 5),
    momentum=st.floats(0.0, 0.9),
    normalise=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equals_going_through_the_rows_one_by_one(batches, queue_size, momentum, normalise, seed):
    memory = LookupTable(4, queue_size, 6, momentum, normalise)
    for i, batch in enumerate(batches):
        pids = torch.tensor(batch, dtype=torch.int64)
        embeddings = unit_rows(len(batch), 6, seed + i)
        table, queue, pointer = reference_update(memory, embeddings, pids)
        memory.update(embeddings, pids)
        torch.testing.assert_close(memory.table, table)
        torch.testing.assert_close(memory.queue, queue)
        assert memory.pointer == pointer
