# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Training and evaluation give the same on one, two and four ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cpu_ranks import launch_ranks
from detectron2.config import CfgNode
from detectron2.utils import comm
from equal_training import (
    FrozenNormsTrainer,
    equal_training_cfg,
    register_uneven_sets,
    sampled_in_order,
)
from scene_teachers import scene_node, write_teacher

from kdps.utils.rng import seed_all
from kdps.utils.testing import TINY_METHODS
from kdps.utils.testing_set import TINY_TEST

METHODS = ("seqnet", "alignps", "gdps")
GDPS = ("FocalGlobalFeature", "GramRelation", "IdentityResponse")
Trained = dict[str, dict[str, torch.Tensor]]


def cfg_of(folder: Path, method: str) -> CfgNode:
    """The SeqNet of "gdps" learns from one whose maps have other channels."""
    cfg = equal_training_cfg(folder / method, *TINY_METHODS.get(method, ()))
    if method == "gdps":
        node = cfg.DISTILLATION
        node.ENABLED, node.TEACHERS, node.LOSSES = True, ("scene",), GDPS
        files = {key: str(folder.parent / f"teacher.{end}") for key, end in _TEACHER.items()}
        node.scene = scene_node(files)
        for loss in node.LOSSES:
            node[loss] = CfgNode(new_allowed=True)
    return cfg


_TEACHER = {"CONFIG_FILE": "yaml", "WEIGHTS": "pth"}


def run_all(folder: Path) -> None:
    """Evaluate what each method begins with, and train it, in this rank."""
    register_uneven_sets(folder.parent / "set")
    results = {}
    for method in METHODS:
        cfg = cfg_of(folder, method)
        seed_all(5)
        trainer = FrozenNormsTrainer(cfg)
        if method != "gdps":
            evaluate(cfg, trainer)
        start = weights_of(trainer)
        with sampled_in_order():
            trainer.train()
        results[method] = {"start": start, "end": weights_of(trainer)}
    torch.save(results, folder / f"{comm.get_rank()}.pt")


def evaluate(cfg: CfgNode, trainer: FrozenNormsTrainer) -> None:
    cfg = cfg.clone()
    everything = (
        *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "MODEL.ALIGNPS.SCORE_THRESH_TEST", 0.0),
        *("TEST.PERSON_SEARCH.SCORE_THRESH", 0.0, "DATASETS.TEST", (TINY_TEST,)),
    )
    cfg.merge_from_list(everything)
    model = FrozenNormsTrainer.build_model(cfg)
    model.load_state_dict(getattr(trainer.model, "module", trainer.model).state_dict())
    FrozenNormsTrainer.test(cfg, model.eval())


def weights_of(trainer: FrozenNormsTrainer) -> dict[str, torch.Tensor]:
    model = getattr(trainer.model, "module", trainer.model)
    return {key: value.clone() for key, value in model.state_dict().items()}


def results_of(folder: Path, ranks: int) -> tuple[Path, Trained]:
    own = folder / str(ranks)
    own.mkdir()
    first, *others = launch_ranks(run_all, own, ranks)
    for method in METHODS:
        for key, value in first[method]["end"].items():
            for other in others:
                assert torch.equal(value, other[method]["end"][key]), (ranks, method, key)
    return own, first


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    folder = tmp_path_factory.mktemp("ranks")
    register_uneven_sets(folder / "set")
    channels = ("MODEL.TINY_RESNET.CHANNELS", (8, 12, 20))
    write_teacher(folder, cfg=equal_training_cfg(folder, *channels))
    return results_of(folder, 1)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_do_what_one_process_does(alone: tuple[Path, Trained], ranks: int) -> None:
    folder, trained = alone
    other_folder, others = results_of(folder.parent, ranks)
    for method in METHODS:
        start, end = trained[method]["start"], trained[method]["end"]
        moved = [key for key in end if not torch.equal(start[key], end[key])]
        assert sum(key.endswith((".table", ".queue")) for key in moved) == 2
        assert any("adapters" in key for key in moved) == (method == "gdps")
        for key, value in end.items():
            error = (others[method]["end"][key] - value).double().norm()
            # What a norm behind it takes away again, such as a bias, has a gradient of noise.
            assert error <= 1e-5 * value.double().norm() + 1e-8, (method, key, float(error))
    for method in ("seqnet", "alignps"):
        assert_same_files(folder / method / "inference", other_folder / method / "inference")


def assert_same_files(one: Path, other: Path) -> None:
    """All that an evaluation leaves, but for the times and places in it."""
    with np.load(one / "detections.npz") as a, np.load(other / "detections.npz") as b:
        assert a.files == b.files
        assert len(a["det"]) > 50
        for name in a.files:
            assert np.array_equal(a[name], b[name]), name
    results: list[Any] = [path / "person_search_results.json" for path in (one, other)]
    first, second = (path.read_text().replace(str(path.parents[2]), "") for path in results)
    assert first == second
