# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The examples of the documents, run as these say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kdps.cli.main import main
from kdps.engine.setup import load_cfg
from kdps.engine.trainer import PersonSearchTrainer
from kdps.evaluation.detections_file import load_detections

ROOT = Path(__file__).resolve().parent.parent


def draw_small_set(folder):
    """A synthetic set in the layout of CUHK-SYSU, with 4 identities in training."""
    root = folder / "synth" / "cuhk-sysu"
    small = (
        "--train-images 8 --test-images 12 --train-ids 4 --test-ids 8 --queries 4 --size 240x180"
    )
    assert main(["data", "synth", str(root), "--format", "cuhk-sysu", *small.split()]) == 0


def run_example(path, folder, *options):
    """Train for three steps by the command in an example's docstring; the records it leaves."""
    command = re.search(rf"python (docs/examples/{path.name} .*?)\n\n", path.read_text(), re.DOTALL)
    short = ("SOLVER.MAX_ITER", "3", "SOLVER.WARMUP_ITERS", "1", "SOLVER.IMS_PER_BATCH", "4")
    output = ("OUTPUT_DIR", str(folder / "output"), "TEST.PERSON_SEARCH.SCORE_THRESH", "0.0")
    done = subprocess.run(
        [sys.executable, *command[1].replace("\\\n", " ").split(), *short, *output, *options],
        env={**os.environ, "DETECTRON2_DATASETS": str(folder)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (folder / "output" / "metrics.json").open()]


OWN = ROOT / "docs" / "examples" / "own_method.py"


def test_the_own_method_is_short_and_told_of():
    assert len(OWN.read_text().splitlines()) <= 150
    assert "examples/own_method.py" in (ROOT / "docs" / "extending.md").read_text()


@pytest.mark.slow
def test_the_own_method_trains_and_evaluates(tmp_path):
    draw_small_set(tmp_path)
    records = run_example(OWN, tmp_path)
    assert any("loss_oim" in record for record in records)
    # Three steps find nobody again, but all of an evaluation is there.
    assert "person_search/mAP" in records[-1]
    weights = torch.load(tmp_path / "output" / "model_final.pth", weights_only=True)["model"]
    # Its own layers have learnt something: their norms start at 0.
    learnt = [weights[f"roi_heads.projectors.{i}.1.bias"] for i in range(3)]
    assert all(bias.any() for bias in learnt)
    found = load_detections(tmp_path / "output" / "inference" / "detections.npz")
    assert len(found.query_emb) == 4
    np.testing.assert_allclose(np.linalg.norm(found.query_emb, axis=1), 1, atol=1e-4)


LOSS = ROOT / "docs" / "examples" / "own_loss.py"


def test_the_own_loss_is_short_and_the_one_that_is_shown():
    code = LOSS.read_text()
    assert len(code.splitlines()) <= 60
    page = (ROOT / "docs" / "distillation.md").read_text()
    assert f"```python\n{code}```" in page
    assert f"```yaml\n{LOSS.with_suffix('.yaml').read_text()}```" in page


@pytest.mark.slow
def test_the_own_loss_trains_by_its_name(tmp_path):
    draw_small_set(tmp_path)
    sizes = ["MODEL.REID_HEAD.NUM_PIDS", "4", "MODEL.REID_HEAD.QUEUE_SIZE", "4"]
    cfg = load_cfg(str(ROOT / "configs" / "synth" / "seqnet_tiny.yaml"), sizes)
    torch.manual_seed(0)
    weights = tmp_path / "teacher.pth"
    torch.save({"model": PersonSearchTrainer.build_model(cfg).state_dict()}, weights)
    records = run_example(LOSS, tmp_path, "DISTILLATION.scene.WEIGHTS", str(weights))
    found = [r["loss_kd_cosine"] for r in records if "loss_kd_cosine" in r]
    # The weights rise over a hundred iterations.
    assert 0 < found[-1] < 0.1
    assert records[-1]["person_search/mAP"] >= 0


STOCK = ROOT / "docs" / "examples" / "stock_pipeline.py"


def test_the_stock_pipeline_is_short_and_the_one_that_is_shown():
    code = STOCK.read_text()
    assert len(code.splitlines()) <= 40
    assert f"```python\n{code}```" in (ROOT / "docs" / "evaluation.md").read_text()


@pytest.mark.slow
def test_the_stock_pipeline_reports_both_evaluators(tmp_path):
    root = tmp_path / "synth" / "prw"
    small = "--train-images 4 --test-images 6 --train-ids 4 --test-ids 4 --queries 4 --size 240x180"
    assert main(["data", "synth", str(root), "--format", "prw", *small.split()]) == 0
    options = {
        "MODEL.DEVICE": "cpu",
        "MODEL.WEIGHTS": "''",
        "MODEL.RESNETS.DEPTH": 18,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": 20,
        "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
        "MODEL.ROI_HEADS.NUM_CLASSES": 1,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
        "INPUT.MIN_SIZE_TRAIN": "(180,)",
        "INPUT.MIN_SIZE_TEST": 180,
        "SOLVER.MAX_ITER": 2,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.BASE_LR": 1e-4,
        "DATALOADER.NUM_WORKERS": 0,
        "DATASETS.TRAIN": "('synth_prw_train',)",
        "DATASETS.TEST": "('synth_prw_test',)",
        "OUTPUT_DIR": str(tmp_path / "output"),
    }
    arguments = [str(part) for option in options.items() for part in option]
    done = subprocess.run(
        [sys.executable, str(STOCK), *arguments],
        env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "output" / "log.txt").read_text()
    assert "Task: bbox" in log
    assert re.search(r"Task: person_search\n.*mAP,top1,top5,top10", log)
    # The boxes are those of both evaluators.
    assert json.loads((tmp_path / "output" / "coco_instances_results.json").read_text())
