# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from kdps.cli.model_source import add_model_arguments, add_score_argument, inference_config
from kdps.config.detector import detector_node
from kdps.utils.testing import TINY_METHODS, tiny_cfg


@pytest.mark.parametrize("method", ["seqnet", "alignps", "roi_alignps"])
@pytest.mark.parametrize(("asked", "detector"), [(0.01, 0.01), (0.9, 0.05)])
def test_the_detector_keeps_whoever_is_asked_for(
    method: str, asked: float, detector: float, tmp_path: Path
) -> None:
    thresholds = (
        *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.05),
        *("MODEL.ALIGNPS.SCORE_THRESH_TEST", 0.05),
    )
    file = tmp_path / "config.yaml"
    file.write_text(tiny_cfg(*TINY_METHODS[method], *thresholds).dump())
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    add_score_argument(parser)
    args = parser.parse_args(["--config-file", str(file), "--score-thresh", str(asked)])
    cfg = inference_config(args)
    assert asked == cfg.TEST.PERSON_SEARCH.SCORE_THRESH
    assert detector == detector_node(cfg).SCORE_THRESH_TEST
