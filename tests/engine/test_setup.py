# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm

from kdps.engine.setup import argument_parser, check_ranks, load_cfg, setup
from kdps.engine.trainer import PersonSearchTrainer
from kdps.errors import KdpsError
from kdps.utils.testing_set import tiny_training_cfg

OPEN_SIZES = ("MODEL.REID_HEAD.NUM_PIDS", "-1", "MODEL.REID_HEAD.QUEUE_SIZE", "-1")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(tiny_training_cfg(tmp_path / "output").dump())
    return path


def call_setup(config: Path, *argv: str) -> CfgNode:
    return setup(argument_parser().parse_args(["--config-file", str(config), *argv]))


# ----------------------------------------------------------------- load_cfg


def test_config_file_and_options_are_merged(config: Path) -> None:
    cfg = load_cfg(str(config), ["SOLVER.BASE_LR", "0.5", "MODEL.WEIGHTS", "a b.pth"])
    assert cfg.SOLVER.BASE_LR == 0.5
    assert cfg.MODEL.WEIGHTS == "a b.pth"
    assert cfg.SOLVER.IMS_PER_BATCH == 4


def test_nodes_of_a_method_of_ones_own(tmp_path: Path) -> None:
    def add_config(cfg: CfgNode) -> None:
        cfg.MODEL.MINE = 1

    (tmp_path / "a.yaml").write_text("MODEL: {MINE: 3}\n")
    assert load_cfg(str(tmp_path / "a.yaml"), [], add_config).MODEL.MINE == 3
    with pytest.raises(KdpsError, match=r"a\.yaml: Non-existent config key: MODEL\.MINE"):
        load_cfg(str(tmp_path / "a.yaml"))


def test_words_of_new_keys_become_values_that_the_command_line_can_replace(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        """
DISTILLATION:
  A: {PLACES: '("x", "y")', SIZES: '[1, 2]', RATE: 1e-3, NAME: "1", TYPE: "Gram (plain)"}
"""
    )
    node = load_cfg(str(tmp_path / "a.yaml")).DISTILLATION.A
    assert (node.PLACES, node.SIZES, node.RATE) == (("x", "y"), [1, 2], 0.001)
    assert (node.NAME, node.TYPE) == ("1", "Gram (plain)")
    opts = ["DISTILLATION.A.PLACES", '("z",)', "DISTILLATION.A.RATE", "0.5"]
    node = load_cfg(str(tmp_path / "a.yaml"), opts).DISTILLATION.A
    assert (node.PLACES, node.RATE) == (("z",), 0.5)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.WEIGHTX", "a"], "MODEL.WEIGHTX a: Non-existent key: MODEL.WEIGHTX"),
        (["SOLVER.MAX_ITER"], "SOLVER.MAX_ITER: options are pairs of KEY VALUE"),
        (["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER many: Type mismatch"),
        (["SOLVER.MAX_ITER.X", "1"], "SOLVER.MAX_ITER.X 1: no tree of config keys"),
    ],
)
def test_bad_options_are_one_line(config: Path, opts: list[str], message: str) -> None:
    with pytest.raises(KdpsError) as caught:
        load_cfg(str(config), opts)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: [", "no valid YAML"),
        ("MODEL: {DEVICE: [1]}", "Type mismatch"),
        ("_BASE_: none.yaml", "none.yaml"),
        ("just words", "no tree of config keys"),
        ("- MODEL", "no tree of config keys"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(KdpsError) as caught:
        load_cfg(str(path))
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(KdpsError, match=r"none\.yaml: .*does not exist"):
        load_cfg(str(tmp_path / "none.yaml"))


# -------------------------------------------------------------- check_ranks


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-processes", "0"], "--num-processes: must be at least 1"),
        (["--num-gpus", "9999"], "--num-gpus: 9999 asked for"),
        (["--num-gpus", "2", "--num-processes", "2"], "one of them at a time"),
        (["--num-machines", "2", "--machine-rank", "2"], "--machine-rank: must be from 0 to 1"),
        (["--num-machines", "2", "--dist-url", "auto"], "--dist-url: 'auto' serves one machine"),
    ],
)
def test_bad_ranks(flags: list[str], message: str) -> None:
    with pytest.raises(KdpsError, match=message):
        check_ranks(argument_parser().parse_args(flags))


@pytest.mark.parametrize("flag", ["--num-gpus", "--num-processes", "--num-machines"])
def test_torchrun_has_started_the_processes(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    check_ranks(argument_parser().parse_args([]))
    with pytest.raises(KdpsError, match=f"{flag}: torchrun has started the processes"):
        check_ranks(argument_parser().parse_args([flag, "2"]))


def test_default_ranks_are_fine() -> None:
    check_ranks(argument_parser().parse_args([]))
    check_ranks(argument_parser().parse_args(["--num-processes", "3", "--dist-url", "auto"]))


def test_processes_on_the_cpu_need_the_cpu(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(KdpsError, match="--num-processes: needs MODEL.DEVICE cpu, not 'cuda'"):
        call_setup(config, "--num-processes", "2", "MODEL.DEVICE", "cuda")


def test_gpus_need_their_device(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(KdpsError, match="--num-gpus: needs MODEL.DEVICE cuda, not 'cpu'"):
        call_setup(config, "--num-gpus", "2", "MODEL.DEVICE", "cpu")


def test_processes_on_gpus_need_their_device(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "nccl")
    monkeypatch.setattr(comm, "get_world_size", lambda: 1)
    monkeypatch.setattr(comm, "get_rank", lambda: 0)
    with pytest.raises(KdpsError, match="MODEL.DEVICE: is 'cpu', but the processes of torchrun"):
        call_setup(config, "MODEL.DEVICE", "cpu")


# -------------------------------------------------------------------- setup


def test_written_config_is_complete(config: Path, tmp_path: Path) -> None:
    cfg = call_setup(config, *OPEN_SIZES, "SEED", "-1")
    # 12 images, every third of which has an unlabelled person.
    assert cfg.MODEL.REID_HEAD.NUM_PIDS == 4
    assert cfg.MODEL.REID_HEAD.QUEUE_SIZE == 4
    assert cfg.SEED >= 0
    written = yaml.safe_load((tmp_path / "output" / "config.yaml").read_text())
    assert written == yaml.safe_load(cfg.dump())
    assert cfg.is_frozen()


def test_sizes_and_seed_that_are_given_stay(config: Path) -> None:
    cfg = call_setup(config, "MODEL.REID_HEAD.NUM_PIDS", "9", "MODEL.REID_HEAD.QUEUE_SIZE", "0")
    assert (cfg.MODEL.REID_HEAD.NUM_PIDS, cfg.MODEL.REID_HEAD.QUEUE_SIZE) == (9, 0)
    assert cfg.SEED == 3


@pytest.mark.parametrize("queue_size", ["-1", "4"])
def test_a_table_too_small_for_the_training_set_is_refused(config: Path, queue_size: str) -> None:
    opts = ("MODEL.REID_HEAD.NUM_PIDS", "3", "MODEL.REID_HEAD.QUEUE_SIZE", queue_size)
    with pytest.raises(KdpsError, match=r"^MODEL\.REID_HEAD\.NUM_PIDS: 3 rows for the 4 ident"):
        call_setup(config, *opts)


def test_resume_takes_the_seed_of_the_checkpoint(config: Path, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    content = {"model": {}, "trainer": {"seed": 1234}}
    torch.save(content, tmp_path / "output" / "model_0000003.pth")
    assert call_setup(config, "--resume", "SEED", "-1").SEED == 1234
    # Half a checkpoint after it changes nothing.
    (tmp_path / "output" / "model_0000007.pth").write_bytes(b"half")
    assert call_setup(config, "--resume", "SEED", "-1").SEED == 1234
    # The run goes on with its own, so config.yaml must not say another.
    assert call_setup(config, "--resume", "SEED", "99").SEED == 1234


def test_the_config_of_a_run_stays_until_it_is_resumed(config: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    torch.save({"model": {}, "trainer": {"seed": 1234}}, output / "model_0000003.pth")
    (output / "config.yaml").write_text("former")
    cfg = call_setup(config, "--resume")
    assert (output / "config.yaml").read_text() == "former"
    with pytest.raises(KdpsError, match="cannot be resumed"):
        PersonSearchTrainer(cfg).resume_or_load(resume=True)
    assert (output / "config.yaml").read_text() == "former"


def test_evaluation_needs_no_training_set_and_leaves_the_training_log_alone(
    config: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "w.pth"
    torch.save({}, weights)
    flags = ("--eval-only", "DATASETS.TRAIN", "('not_there',)", *OPEN_SIZES)
    call_setup(config, *flags, "MODEL.WEIGHTS", str(weights))
    assert not (tmp_path / "output" / "config.yaml").exists()
    assert (tmp_path / "output" / "inference" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["MODEL.FROM_SCRATCH", "False"], "MODEL.WEIGHTS: empty; .*MODEL.FROM_SCRATCH True"),
        (["MODEL.WEIGHTS", "a.pth"], "MODEL.FROM_SCRATCH: is True, yet MODEL.WEIGHTS names a.pth"),
        (
            ["MODEL.FROM_SCRATCH", "False", "MODEL.WEIGHTS", "none.pth"],
            "MODEL.WEIGHTS: no such file: none.pth; .*MODEL.FROM_SCRATCH True",
        ),
        (["--eval-only"], "MODEL.WEIGHTS: empty; name the checkpoint to evaluate"),
        (["--eval-only", "--resume"], "MODEL.WEIGHTS: empty; name the checkpoint to evaluate"),
        (["--eval-only", "MODEL.WEIGHTS", "none.pth"], "MODEL.WEIGHTS: no such file: none.pth$"),
    ],
)
def test_weights_are_settled_before_anything_is_built(
    config: Path, tmp_path: Path, argv: list[str], message: str
) -> None:
    with pytest.raises(KdpsError, match=message):
        call_setup(config, *argv)
    assert not (tmp_path / "output").exists()


def test_resuming_needs_no_weights(config: Path, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    torch.save({"model": {}}, tmp_path / "output" / "model_0000003.pth")
    gone: Any = ("MODEL.FROM_SCRATCH", "False", "MODEL.WEIGHTS", "none.pth")
    cfg = call_setup(config, "--resume", *gone)
    assert (cfg.MODEL.FROM_SCRATCH, cfg.MODEL.WEIGHTS) == (False, "none.pth")
    assert (tmp_path / "output" / "config.yaml").exists()


def test_a_new_run_does_not_mix_with_an_earlier_one(config: Path, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    torch.save({"model": {}}, tmp_path / "output" / "model_0000003.pth")
    with pytest.raises(KdpsError, match="OUTPUT_DIR: .*output holds checkpoints of an earlier run"):
        call_setup(config)
    weights = str(tmp_path / "output" / "model_0000003.pth")
    call_setup(config, "--eval-only", "MODEL.WEIGHTS", weights)
