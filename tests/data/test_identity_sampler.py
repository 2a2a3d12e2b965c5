# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from itertools import islice

import pytest
from detectron2.utils import comm

from kdps.data.identity_sampler import IdentitySampler
from kdps.errors import KdpsError

PIDS = [0, 0, 0, 0, 0, 3, 3, 7, 7, 7]


def take(sampler, count):
    return list(islice(sampler, count))


def test_each_identity_comes_once_an_epoch_with_as_many_crops():
    items = take(IdentitySampler(PIDS, 4, seed=1), 3 * 4 * 5)
    blocks = [items[i : i + 4] for i in range(0, len(items), 4)]
    pids = [{PIDS[index] for index, _ in block} for block in blocks]
    assert all(len(own) == 1 for own in pids)
    epochs = [[own.pop() for own in pids[i : i + 3]] for i in range(0, len(pids), 3)]
    assert all(sorted(epoch) == [0, 3, 7] for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1
    for block in blocks:
        indices = [index for index, _ in block]
        # All crops of who has too few.
        assert len(set(indices)) == min(4, PIDS.count(PIDS[indices[0]]))
    assert len({seed for _, seed in items}) == len(items)


@pytest.mark.parametrize("position", [0, 4, 16])
def test_continues_at_the_start_of_a_batch(position):
    whole = take(IdentitySampler(PIDS, 4, seed=4), 40)
    resumed = IdentitySampler(PIDS, 4, seed=0)
    resumed.load_state_dict({"seed": 4, "size": len(PIDS), "position": position, "instances": 4})
    assert take(resumed, 40 - position) == whole[position:]


def test_ranks_take_identities_in_turns(monkeypatch):
    whole = take(IdentitySampler(PIDS, 2, seed=4), 24)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        parts.append(take(IdentitySampler(PIDS, 2, seed=4), 12))
    blocks = [whole[i : i + 2] for i in range(0, 24, 2)]
    assert parts[0] == sum(blocks[::2], [])
    assert parts[1] == sum(blocks[1::2], [])


def test_another_number_of_crops_is_no_continuation():
    sampler = IdentitySampler(PIDS, 2, seed=1)
    with pytest.raises(KdpsError, match="INSTANCES_PER_IDENTITY: is 2, .* was trained with 4"):
        sampler.load_state_dict(IdentitySampler(PIDS, 4, seed=1).state_dict())


def test_nobody_to_sample():
    with pytest.raises(KdpsError, match="no image is left"):
        IdentitySampler([], 4, seed=1)
