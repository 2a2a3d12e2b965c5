# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import re
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from published_checkpoints import as_published, make_published

import kdps.modeling  # noqa: F401  (registers the model)
from kdps.checkpoint.convert import METHODS
from kdps.cli.main import main
from kdps.config import get_cfg
from kdps.train_net import main as train_net
from kdps.utils.testing_set import TINY_TEST, register_tiny_sets


@pytest.fixture
def nae(tmp_path):
    """A file as the public NAE saves it."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    saved = {
        "epoch": 22,
        "model": make_published("nae"),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 16).state_dict(),
    }
    torch.save(saved, tmp_path / "published.pth")
    return tmp_path / "published.pth"


def convert(published, output, method="nae"):
    return main(["convert", "--from", method, str(published), str(output)])


def test_summary_and_file(nae, tmp_path, capsys):
    output = tmp_path / "new" / "converted.pth"
    assert convert(nae, output) == 0
    weights = torch.load(output, weights_only=True)["model"]
    table = torch.load(nae, weights_only=True)["model"]["roi_heads.reid_loss.lut"]
    assert torch.equal(weights["roi_heads.reid_predictor.oim.memory.table"], table)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{nae}: NAE"
    assert lines[1] == f"{len(weights)} entries written to {output}"
    name = "roi_heads.box_predictor.cls_score.weight"
    assert lines[2].startswith("2 entries dropped (a classifier that NAE makes and does not use): ")
    assert lines[2].endswith(f"{name} and 1 more")
    assert lines[3].startswith("3 entries dropped (beside the weights, as the state of")
    assert "memory.table: 5 identities, 0 of them without a row there" in lines[4]


def test_tensors_that_share_their_memory_are_saved_apart(nae, tmp_path):
    content = torch.load(nae, weights_only=True)
    state, large = content["model"], torch.ones(10**6)
    for name in ("rpn.head.conv.bias", "rpn.head.cls_logits.bias"):
        state[name] = large[: len(state[name])]
    torch.save(content, nae)
    assert convert(nae, tmp_path / "converted.pth") == 0
    assert nae.stat().st_size > 4 * 10**6
    assert (tmp_path / "converted.pth").stat().st_size < 10**6


def error_of(capsys):
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_an_unknown_entry(nae, tmp_path, capsys):
    content = torch.load(nae, weights_only=True)
    content["model"]["extra.weight"] = torch.zeros(1)
    torch.save(content, nae)
    assert convert(nae, tmp_path / "converted.pth") == 2
    expected = f"kdps: error: {nae}: NAE: the checkpoint has an unknown entry 'extra.weight'\n"
    assert error_of(capsys) == expected
    assert not (tmp_path / "converted.pth").exists()


def test_a_truncated_file(nae, tmp_path, capsys):
    nae.write_bytes(nae.read_bytes()[:-1000])
    assert convert(nae, tmp_path / "converted.pth") == 2
    assert f"{nae}: not a readable checkpoint" in error_of(capsys)


def test_a_checkpoint_of_another_method(nae, tmp_path, capsys):
    assert convert(nae, tmp_path / "converted.pth", "seqnet") == 2
    assert "; it looks like NAE (--from nae)" in error_of(capsys)


def test_a_method_that_is_not_known(nae, tmp_path, capsys):
    with pytest.raises(SystemExit):
        convert(nae, tmp_path / "converted.pth", "pstr")
    assert "seqnet" in capsys.readouterr().err


def test_a_checkpoint_is_not_written_over_itself(nae, capsys):
    before = nae.read_bytes()
    assert convert(nae, nae) == 2
    assert "is the file to convert" in error_of(capsys)
    assert nae.read_bytes() == before


def test_a_file_that_cannot_be_written(nae, tmp_path, capsys):
    assert convert(nae, tmp_path) == 2
    assert "is a folder" in error_of(capsys)


NARROW = [
    *("MODEL.DEVICE", "cpu", "MODEL.RESNETS.STEM_OUT_CHANNELS", "4"),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", "8", "MODEL.RESNETS.WIDTH_PER_GROUP", "2"),
    *("MODEL.COAT.DIM", "32", "MODEL.COAT.OUTPUT_CHANNELS", "32", "MODEL.COAT.NUM_HEADS", "2"),
]


@pytest.mark.parametrize(
    ("method", "model"),
    [
        *((method, f"{method}_R_50_C4") for method in ("seqnet", "nae", "oim", "coat")),
        ("nae+", "nae_plus_R_50_C4"),
        *(("alignps", name) for name in ("alignps_R_50", "alignps_plus_R_50")),
        ("roi-alignps", "roi_alignps_R_50"),
    ],
)
def test_documented_conversion_and_evaluation(method, model, tmp_path, monkeypatch):
    text = Path("configs/README.md").read_text(encoding="utf-8").replace("\\\n", "")
    (command,) = re.findall(r"^kdps (convert .*)$", text, re.MULTILINE)
    (evaluation,) = re.findall(r"train_net\.py (--eval-only .*?)\n", text)
    _, _, config, key, file = evaluation.split()
    config = config.replace("seqnet_R_50_C4", model)
    cfg = get_cfg()
    cfg.merge_from_file(config)
    cfg.merge_from_list([*NARROW, "MODEL.REID_HEAD.NUM_PIDS", 5, "MODEL.REID_HEAD.QUEUE_SIZE", 4])
    # With other weights a region may have no feature above zero, and then no direction.
    torch.manual_seed(0)
    # No checkpoint has the classifiers of identities that COAT trains with.
    own = {k: v for k, v in build_model(cfg).state_dict().items() if ".id_loss." not in k}
    config = str(Path(config).resolve())
    monkeypatch.chdir(tmp_path)
    variant = "alignps-plus" if model.startswith("alignps_plus") else method
    theirs = as_published(own, method, variant)
    torch.save({METHODS[method].wrapper: theirs}, "published.pth")

    assert main(command.replace("seqnet", method).split()) == 0
    converted = torch.load(file, weights_only=True)["model"]
    assert converted.keys() == own.keys()
    assert all(torch.equal(converted[name], own[name]) for name in own)

    register_tiny_sets(tmp_path / "images")
    sizes = ["INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "100"]
    data = ["DATASETS.TEST", f"('{TINY_TEST}',)", "DATALOADER.NUM_WORKERS", "0"]
    flags = ["--eval-only", "--config-file", config, key, file, "OUTPUT_DIR", "run"]
    assert train_net([*flags, *NARROW, *sizes, *data]) == 0
    assert Path("run/inference/person_search_results.json").is_file()
