# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cpu_ranks import launch_ranks
from detectron2.utils import comm
from torch import nn

from kdps.engine.distributed import wrap_for_training
from kdps.utils.distributed import rank_share, with_other_ranks

# Rows of each rank: unequally many, and none.
ROWS = (3, 0, 1)


def test_a_process_alone_has_all_of_it() -> None:
    rows = torch.rand(3, 2, requires_grad=True)
    assert with_other_ranks(rows) is rows
    assert rank_share(3, rows.device) == 1.0


def mean_loss(rows: torch.Tensor) -> torch.Tensor:
    mean = rows.square().sum() / max(len(rows), 1)
    return mean * rank_share(len(rows), rows.device)


def pair_loss(rows: torch.Tensor) -> torch.Tensor:
    everyone = with_other_ranks(rows)
    return (everyone @ everyone.T).exp().mean()


class _Losses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2, bias=False)
        nn.init.eye_(self.layer.weight)

    def forward(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        rows = self.layer(rows)
        return {"mean": mean_loss(rows), "pairs": pair_loss(rows)}


def _values_and_gradients(rows: torch.Tensor) -> dict[str, torch.Tensor]:
    found = {}
    for name in ("mean", "pairs"):
        model = _Losses()
        if comm.get_world_size() > 1:
            model = wrap_for_training(model)
        loss = model(rows)[name]
        loss.backward()
        found[name] = loss.detach()
        found[f"{name}_grad"] = next(model.parameters()).grad
    nothing = rank_share(0, rows.device)
    several = rank_share(torch.tensor([len(rows), 0]), rows.device)
    return {
        **found,
        "nothing": torch.as_tensor(nothing),
        "several": torch.as_tensor(several),
        "plain": with_other_ranks(rows),
    }


def _rows() -> torch.Tensor:
    return torch.rand(sum(ROWS), 2, generator=torch.Generator().manual_seed(0))


def _run(folder: Path) -> None:
    rank = comm.get_rank()
    found = _values_and_gradients(_rows().split(ROWS)[rank])
    torch.save(found, folder / f"{rank}.pt")


@pytest.mark.slow
def test_losses_of_ranks_are_those_of_all_rows(tmp_path: Path) -> None:
    ranks = launch_ranks(_run, tmp_path, len(ROWS))
    alone = _values_and_gradients(_rows())
    for name in ("mean", "pairs"):
        # What is logged is the mean over ranks.
        value = torch.stack([own[name] for own in ranks]).mean()
        torch.testing.assert_close(value, alone[name])
        for own in ranks:
            torch.testing.assert_close(own[f"{name}_grad"], alone[f"{name}_grad"])
    for own, rows in zip(ranks, ROWS, strict=True):
        assert own["nothing"] == 1.0
        assert own["several"].tolist() == [rows * len(ROWS) / sum(ROWS), 1.0]
        assert torch.equal(own["plain"], _rows())
