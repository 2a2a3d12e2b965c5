# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Counts and coordinate sums that the public loaders give on generated sets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kdps.cli.main import main
from kdps.data.datasets.cuhk_sysu import load_cuhk_sysu, load_cuhk_sysu_protocol
from kdps.data.datasets.prw import load_prw, load_prw_protocol

SHARED = os.environ.get("KDPS_SHARED")
pytestmark = pytest.mark.skipif(not SHARED, reason="KDPS_SHARED is not set")
SETS = [(layout, preset) for layout in ("cuhk", "prw") for preset in ("tiny", "medium")]


@pytest.fixture(scope="module", params=SETS, ids="-".join)
def generated(request, tmp_path_factory):
    layout, preset = request.param
    root = tmp_path_factory.mktemp("kit") / f"{layout}_{preset}"
    script = Path(SHARED) / "evalkit" / "kit_eval.py"
    args = [layout, str(root), "--preset", preset, "--seed", "0", "--images"]
    subprocess.run([sys.executable, str(script), *args], check=True, capture_output=True)
    expected = json.loads((Path(SHARED) / "evalkit" / "expected.json").read_text())
    return layout, root, expected[f"{root.name}_0"]


def test_loader_numbers(generated):
    layout, root, expected = generated
    if layout == "cuhk":
        load, protocol = load_cuhk_sysu, load_cuhk_sysu_protocol(root, 50)
    else:
        load, protocol = load_prw, load_prw_protocol(root)
    train, test = load(root, "train"), load(root, "test")
    train_boxes = [a for record in train for a in record["annotations"]]
    boxes = [a for record in test for a in record["annotations"]]
    assert {
        "gallery": len(test),
        "query": len(protocol.queries),
        "train": len(train),
        "boxes": len(boxes),
        "labelled": sum(a["person_id"] >= 0 for a in boxes),
        "box_sum": sum(sum(a["bbox"]) for a in boxes),
        "query_box_sum": sum(sum(query.bbox) for query in protocol.queries),
        "train_boxes": len(train_boxes),
        "train_labelled": sum(a["person_id"] >= 0 for a in train_boxes),
    } == expected["loader"]


def test_images_come_in_the_protocols_order(generated):
    layout, root, _ = generated
    load = load_cuhk_sysu if layout == "cuhk" else load_prw
    records = load(root, "test", image_sizes=False)
    outputs = np.load(root / "outputs.npz")
    assert [record["image_id"] for record in records] == outputs["names"].tolist()
    assert [len(record["annotations"]) for record in records] == outputs["gt_count"].tolist()


def test_generated_sets_pass_the_check(generated, capsys):
    _, root, _ = generated
    assert main(["data", "check", "--root", str(root), "--decode"]) == 0
    assert "errors: 0" in capsys.readouterr().out
