# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from itertools import islice

import pytest
from detectron2.utils import comm

from kdps.data.samplers import ResumableTrainingSampler
from kdps.errors import KdpsError


def take(sampler: ResumableTrainingSampler, count: int) -> list[tuple[int, int]]:
    return list(islice(sampler, count))


def test_each_epoch_visits_every_record_once_in_its_own_order() -> None:
    indices = [index for index, _ in take(ResumableTrainingSampler(30, seed=1), 90)]
    epochs = [indices[0:30], indices[30:60], indices[60:90]]
    assert all(sorted(epoch) == list(range(30)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[1] != epochs[2]
    assert epochs[0] != list(range(30))


def test_order_and_sample_seeds_follow_from_the_seed() -> None:
    first = take(ResumableTrainingSampler(30, seed=1), 60)
    assert first == take(ResumableTrainingSampler(30, seed=1), 60)
    assert first != take(ResumableTrainingSampler(30, seed=2), 60)


def test_a_record_gets_another_sample_seed_each_time() -> None:
    samples = take(ResumableTrainingSampler(5, seed=1), 500)
    assert len({seed for _, seed in samples}) == 500


@pytest.mark.parametrize("position", [0, 1, 7, 10, 23])
def test_continues_at_any_position(position: int) -> None:
    whole = take(ResumableTrainingSampler(10, seed=4), 40)
    resumed = ResumableTrainingSampler(10, seed=0)
    resumed.load_state_dict({"seed": 4, "size": 10, "position": position})
    assert take(resumed, 40 - position) == whole[position:]


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_one_stream(monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    whole = take(ResumableTrainingSampler(10, seed=4), 30)
    monkeypatch.setattr(comm, "get_world_size", lambda: ranks)
    for rank in range(ranks):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        assert take(ResumableTrainingSampler(10, seed=4), 30 // ranks) == whole[rank::ranks]


@pytest.mark.parametrize("position", [0, 4])
def test_a_batch_keeps_its_order_over_the_ranks(
    monkeypatch: pytest.MonkeyPatch, position: int
) -> None:
    whole = take(ResumableTrainingSampler(10, seed=4), 32)[position:]
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        sampler = ResumableTrainingSampler(10, seed=4, share=2)
        sampler.position = position
        parts.append(take(sampler, 14))
    batches = [x for i in range(0, 14, 2) for part in parts for x in part[i : i + 2]]
    assert batches == whole[:28]


def test_state_round_trip() -> None:
    sampler = ResumableTrainingSampler(10, seed=4)
    sampler.position = 12
    other = ResumableTrainingSampler(10, seed=5)
    other.load_state_dict(sampler.state_dict())
    assert take(other, 20) == take(sampler, 20)


def test_refuses_the_state_of_another_data_set() -> None:
    sampler = ResumableTrainingSampler(10, seed=4)
    with pytest.raises(KdpsError, match=r"DATASETS\.TRAIN: has 10 images.* 11; start"):
        sampler.load_state_dict({"seed": 4, "size": 11, "position": 0})


@pytest.mark.parametrize(("size", "seed", "key"), [(0, 1, "DATASETS.TRAIN"), (3, -1, "SEED")])
def test_refuses_bad_arguments(size: int, seed: int, key: str) -> None:
    with pytest.raises(KdpsError, match=key):
        ResumableTrainingSampler(size, seed)
