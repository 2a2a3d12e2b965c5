# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The memory of several processes."""

import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from kdps.layers.lookup_table import LookupTable

# People of each step and rank. Unequal numbers, nobody at all, an identity on both ranks.
STEPS = [
    ([0, 1, -1, 0], [1, -1, -1]),
    ([], [2, 2, -1]),
    ([-1, -1, -1, 3], []),
]


def embeddings_of(step, rank):
    generator = torch.Generator().manual_seed(10 * step + rank)
    x = torch.randn(len(STEPS[step][rank]), 8, generator=generator)
    return torch.nn.functional.normalize(x)


def run_rank(rank, port, folder):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)
    memory = LookupTable(4, 5, 8)
    for step, people in enumerate(STEPS):
        pids = torch.tensor(people[rank], dtype=torch.int64)
        memory.update(embeddings_of(step, rank), pids)
    torch.save(memory.state_dict(), f"{folder}/{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_agree_with_each_other_and_with_one_on_the_joined_batch(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(run_rank, args=(port, str(tmp_path)), nprocs=2)
    joined = LookupTable(4, 5, 8)
    for step, people in enumerate(STEPS):
        embeddings = torch.cat([embeddings_of(step, rank) for rank in range(2)])
        joined.update(embeddings, torch.tensor([*people[0], *people[1]], dtype=torch.int64))
    assert joined.table.count_nonzero() > 0
    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pth")
        for name, expected in joined.state_dict().items():
            assert torch.equal(state[name], expected), (rank, name)
