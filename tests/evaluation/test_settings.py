# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest

from kdps.config import get_cfg
from kdps.errors import KdpsError
from kdps.evaluation.settings import SearchSettings, published_score_cut, settings_from_meta


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"protocol": "loose"}, "protocol: must be compat or copies or strict, not 'loose'"),
        ({"cameras": "some"}, "cameras: must be all or cross or multi_view"),
        ({"query_mode": "guess"}, "query_mode: must be given_box or best_iou"),
        ({"score_thresh": 1.5}, "score_thresh: must be between 0 and 1, not 1.5"),
        ({"score_thresh": float("nan")}, "score_thresh: must be between 0 and 1, not nan"),
        ({"query_expansion": -1}, "query_expansion: must be 0 or more"),
        ({"cbgm_k2": 0}, "cbgm_k2: must be 1 or more, not 0"),
        ({"cbgm": True, "rerank": True}, "cbgm: not together with rerank"),
    ],
)
def test_values_out_of_range(values, message):
    with pytest.raises(KdpsError, match=message):
        SearchSettings(**values)


def test_only_what_takes_part_is_told():
    assert "cbgm_k1" not in SearchSettings().as_dict()
    assert "device" not in SearchSettings(device="cuda").as_dict()
    assert SearchSettings(cbgm=True, cbgm_k1=7).as_dict()["cbgm_k1"] == 7


def test_the_config_has_every_setting_and_the_same_defaults():
    cfg = get_cfg()
    assert SearchSettings.from_config(cfg) == SearchSettings()
    node = cfg.TEST.PERSON_SEARCH
    node.SCORE_THRESH, node.WEIGHTED, node.PROTOCOL, node.CAMERAS = 0.25, True, "strict", "cross"
    node.QUERY_EXPANSION, node.CBGM, node.CBGM_K1, node.CBGM_K2 = 2, True, 30, 4
    assert SearchSettings.from_config(cfg) == SearchSettings(
        score_thresh=0.25,
        weighted=True,
        protocol="strict",
        cameras="cross",
        query_expansion=2,
        cbgm=True,
        cbgm_k1=30,
        cbgm_k2=4,
    )
    node.CBGM, node.RERANK = False, True
    assert SearchSettings.from_config(cfg).rerank


def test_a_fault_in_the_config_names_its_key():
    cfg = get_cfg()
    cfg.TEST.PERSON_SEARCH.PROTOCOL = "loose"
    with pytest.raises(KdpsError, match=r"^TEST\.PERSON_SEARCH\.PROTOCOL: must be compat"):
        SearchSettings.from_config(cfg)


def test_a_detections_file_gives_the_defaults():
    meta = {"score_thresh": 0.3, "weighted": True, "method": "AlignPS", "other": 1}
    assert settings_from_meta(meta, "prw_test") == {"score_thresh": 0.3, "weighted": True}
    assert settings_from_meta({}, "prw_test") == {"score_thresh": 0.5}
    assert settings_from_meta({"method": "AlignPS+"}, "prw_test") == {"score_thresh": 0.15}


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"score_thresh": "high"}, "meta: score_thresh has the value 'high'"),
        ({"score_thresh": True}, "meta: score_thresh has the value True"),
        ({"weighted": 1}, "meta: weighted has the value 1"),
    ],
)
def test_meta_of_the_wrong_kind(meta, message):
    with pytest.raises(KdpsError, match=message):
        settings_from_meta(meta, "prw_test")


@pytest.mark.parametrize(
    ("method", "dataset", "cut"),
    [
        ("AlignPS", "cuhk_sysu_test", 0.2),
        ("alignps_plus", "prw:PRW-v16.04.20", 0.15),
        ("PSTR", "cuhk-sysu:data", 0.25),
        ("PSTR", "prw_test", 0.3),
        ("SeqROIHeads", "prw_test", 0.5),
        ("", "mine", 0.5),
    ],
)
def test_published_score_cuts(method, dataset, cut):
    assert published_score_cut(method, dataset) == cut
