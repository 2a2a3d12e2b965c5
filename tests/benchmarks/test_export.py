# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import json
import sys

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
# A module of this name is in no package.
import export


@pytest.mark.slow
def test_a_small_run(monkeypatch, capsys):
    config = "configs/synth/seqnet_tiny.yaml"
    options = ["--size", "96", "128", "--repeat", "2", "--opts"]
    low = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    monkeypatch.setattr(sys, "argv", ["export.py", "--config-file", config, *options, *low])
    export.main()
    found = json.loads(capsys.readouterr().out)["seconds_per_image"]["seqnet_tiny"]
    assert found["persons"] > 0
    assert found["times faster"] == pytest.approx(found["kdps"] / found["onnxruntime"])
