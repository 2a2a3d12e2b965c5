# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
from detectron2.modeling import build_model

import kdps.modeling  # noqa: F401  registers the architectures
from kdps.config.detector import detector_node
from kdps.evaluation.person_search_evaluation import detections_meta
from kdps.utils.testing import TINY_METHODS, tiny_cfg


@pytest.mark.parametrize("method", TINY_METHODS)
def test_the_node_is_the_one_that_the_model_goes_by(method: str) -> None:
    thresholds = (
        *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.31),
        *("MODEL.ALIGNPS.SCORE_THRESH_TEST", 0.17),
    )
    cfg = tiny_cfg(*TINY_METHODS[method], *thresholds)
    model = build_model(cfg)
    detector = model if hasattr(model, "test_score_thresh") else model.roi_heads
    assert detector.test_score_thresh == detector_node(cfg).SCORE_THRESH_TEST
    meta = detections_meta(cfg, "prw_test")
    assert meta["detector_score_thresh"] == detector.test_score_thresh
