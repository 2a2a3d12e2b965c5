# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from short_training import assert_equal, train, weights
from torch import nn

from kdps.engine.trainer import PersonSearchTrainer
from kdps.errors import KdpsError
from kdps.layers.lookup_table import LookupTable
from kdps.utils.testing_set import tiny_training_cfg


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(tiny_training_cfg(folder))
    return folder


def test_a_run_leaves_checkpoints_metrics_and_the_best_model(uninterrupted: Path) -> None:
    files = {path.name for path in uninterrupted.iterdir()}
    assert {"model_0000003.pth", "model_0000007.pth", "model_final.pth", "model_best.pth"} <= files
    assert not [name for name in files if name.endswith(".tmp")]
    assert (uninterrupted / "last_checkpoint").read_text() == "model_final.pth"
    assert set(weights(uninterrupted, "model_best")) == {"model", "iteration"}
    records = [json.loads(x) for x in (uninterrupted / "metrics.json").read_text().splitlines()]
    evaluated = [r["iteration"] for r in records if "person_search/mAP" in r]
    assert evaluated == [3, 8]
    assert all("loss_oim" in r for r in records if r["iteration"] in (1, 3, 5, 7))


def test_training_moves_weights_and_lookup_table(uninterrupted: Path) -> None:
    first = weights(uninterrupted, "model_0000003")["model"]
    last = weights(uninterrupted)["model"]
    tables = [key for key in last if key.endswith(".table")]
    assert tables
    assert all((last[key] != 0).any() for key in tables)
    assert any(not torch.equal(first[key], last[key]) for key in last if key.endswith("weight"))


@pytest.mark.parametrize("stop_after", [4, 6])
def test_resumed_run_equals_an_uninterrupted_one(
    uninterrupted: Path, tmp_path: Path, stop_after: int
) -> None:
    # Other numbers of workers must not matter either.
    train(tiny_training_cfg(tmp_path), stop_after=stop_after)
    train(tiny_training_cfg(tmp_path, "DATALOADER.NUM_WORKERS", 2), resume=True)
    for name in ("model_final", "model_best"):
        assert_equal(weights(tmp_path, name), weights(uninterrupted, name))


def test_scaled_iterations_are_resumed_with_as_many_processes(tmp_path: Path) -> None:
    opts = ("DATASETS.TEST", (), "TEST.EVAL_PERIOD", 0, "SOLVER.MAX_ITER", 2, "SOLVER.STEPS", ())
    trained = train(tiny_training_cfg(tmp_path, *opts, "SOLVER.REFERENCE_WORLD_SIZE", 2))
    # One process takes half of the images of two, and twice the steps.
    assert trained.cfg.SOLVER.IMS_PER_BATCH == 2
    assert trained.max_iter == 4
    with pytest.raises(KdpsError, match=r"REFERENCE_WORLD_SIZE: scaled to 0 .* from to 1 \(0"):
        train(tiny_training_cfg(tmp_path, *opts), resume=True)


def test_another_seed_gives_another_run(uninterrupted: Path, tmp_path: Path) -> None:
    train(tiny_training_cfg(tmp_path, "SEED", 4, "TEST.EVAL_PERIOD", 0, "DATASETS.TEST", ()))
    final, other = weights(tmp_path), weights(uninterrupted)
    key = next(key for key in final["model"] if key.endswith(".table"))
    assert not torch.equal(final["model"][key], other["model"][key])


def test_resume_keeps_the_seed_of_the_checkpoint(uninterrupted: Path, tmp_path: Path) -> None:
    train(tiny_training_cfg(tmp_path), stop_after=4)
    train(tiny_training_cfg(tmp_path, "SEED", 99), resume=True)
    assert_equal(weights(tmp_path), weights(uninterrupted))


def test_evaluation_lost_at_the_checkpoint_is_made_up(tmp_path: Path) -> None:
    trainer = PersonSearchTrainer(tiny_training_cfg(tmp_path))
    hook = next(h for h in trainer._hooks if type(h).__name__ == "EvalHook")

    def die() -> None:
        raise InterruptedError

    hook._func = die
    with pytest.raises(InterruptedError):
        trainer.train()
    assert not (tmp_path / "model_best.pth").exists()
    train(tiny_training_cfg(tmp_path), resume=True, stop_after=5)
    assert weights(tmp_path, "model_best")["iteration"] == 3
    records = [json.loads(x) for x in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [r["iteration"] for r in records if "person_search/mAP" in r] == [3]


def test_finished_run_can_be_resumed_and_only_evaluates(
    uninterrupted: Path, tmp_path: Path
) -> None:
    train(tiny_training_cfg(tmp_path))
    train(tiny_training_cfg(tmp_path), resume=True)
    assert_equal(weights(tmp_path), weights(uninterrupted))
    records = [json.loads(x) for x in (tmp_path / "metrics.json").read_text().splitlines()]
    assert max(r["iteration"] for r in records) == 8


def test_resume_from_a_checkpoint_of_another_training_set_is_refused(
    uninterrupted: Path, tmp_path: Path
) -> None:
    content = weights(uninterrupted)
    content["trainer"]["sampler"]["size"] = 100
    torch.save(content, tmp_path / "model_0000007.pth")
    trainer = PersonSearchTrainer(tiny_training_cfg(tmp_path))
    with pytest.raises(KdpsError, match=r"DATASETS\.TRAIN: has 12 images.* 100"):
        trainer.resume_or_load(resume=True)


def test_precise_bn_leaves_the_lookup_table_alone(tmp_path: Path) -> None:
    on = ("TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2)
    trainer = PersonSearchTrainer(tiny_training_cfg(tmp_path, *on))
    (hook,) = [h for h in trainer._hooks if type(h).__name__ == "PreciseBN"]
    _fill_tables(trainer.model)
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    hook.update_stats()
    after = trainer.model.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert any(key.endswith("running_mean") for key in moved)
    assert not [key for key in moved if key.endswith((".table", ".queue", ".pointer"))]


def test_precise_bn_runs_equally_after_a_resume(tmp_path: Path) -> None:
    opts = ("TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2)
    train(tiny_training_cfg(tmp_path / "a", *opts))
    train(tiny_training_cfg(tmp_path / "b", *opts), stop_after=5)
    train(tiny_training_cfg(tmp_path / "b", *opts), resume=True)
    assert_equal(weights(tmp_path / "b"), weights(tmp_path / "a"))


def _fill_tables(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, LookupTable):
            module.table.fill_(0.25)


def test_coco_metrics_stand_beside_person_search(tmp_path: Path) -> None:
    cfg = tiny_training_cfg(tmp_path, "TEST.COCO_METRICS", True)
    results = PersonSearchTrainer.test(cfg, PersonSearchTrainer.build_model(cfg))
    assert {"person_search", "bbox"} <= set(results)
