# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from kdps.cli.main import main
from kdps.utils import environment


def row(text: str, name: str) -> str:
    found = re.search(rf"^  {re.escape(name)} +(.*)$", text, re.MULTILINE)
    assert found, name
    return found[1]


def test_what_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "PRW").mkdir()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setattr(environment, "gpus", lambda: [])
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    assert row(text, "torch") in torch.__version__
    assert row(text, "GPU") == "none that torch can use"
    assert row(text, "deformable convolution, training") == "torch's embedding_bag"
    assert row(text, "prw_test") == str(tmp_path / "PRW")
    assert row(text, "cuhk_sysu_train") == "not found"
    assert f"DETECTRON2_DATASETS is {tmp_path}" in text
    assert "on the GPU" not in text


def test_gpus_have_their_operators(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "gpus", lambda: [("A100", 79.6, "8.0")] * 2)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    assert row(text, "GPU 1") == "A100, 80 GiB, compute capability 8.0"
    on_gpu = text.partition("Active on the GPU")[2]
    assert row(on_gpu, "deformable convolution, training") == "torchvision"
    assert "DETECTRON2_DATASETS is not set" in text


def test_report_of_detectron2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--all"]) == 0
    assert "sys.platform" in capsys.readouterr().out
