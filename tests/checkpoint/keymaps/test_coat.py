# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.modeling import build_model
from published_checkpoints import make_published

import kdps.modeling  # noqa: F401  (registers the model)
from kdps.checkpoint.convert import convert
from kdps.checkpoint.prw_table import NUMBERS, PUBLIC_ROWS
from kdps.config import get_cfg
from kdps.errors import KdpsError


@pytest.fixture
def published():
    return make_published("coat")


def test_only_the_classifiers_of_identities_are_in_no_checkpoint(published):
    cfg = get_cfg()
    cfg.merge_from_file("configs/CUHK-SYSU/coat_R_50_C4.yaml")
    cfg.MODEL.DEVICE = "cpu"
    # They are made where identities are known.
    cfg.MODEL.REID_HEAD.NUM_PIDS = 3
    rest = build_model(cfg).state_dict().keys() - convert(published, "coat").weights.keys()
    assert rest
    assert all(".id_loss." in name for name in rest)


def test_person_comes_first(published):
    ours = convert(published, "coat").weights["roi_heads.box_predictor.cls_score.bias"]
    theirs = published["roi_heads.box_predictor_1st.cls_score.bias"]
    assert torch.equal(ours, theirs.flip(0))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("box_predictor_1st.bbox_pred.weight", "box_predictor.bbox_pred.weight"),
        ("box_predictor_2nd.bbox_pred.0.weight", "reid_predictors.0.bbox_pred.0.weight"),
        ("box_predictor_3rd.bbox_pred.1.running_var", "reid_predictors.1.bbox_pred.1.running_var"),
    ],
)
def test_only_the_box_of_the_person_is_kept(published, theirs, ours):
    converted = convert(published, "coat").weights[f"roi_heads.{ours}"]
    assert torch.equal(converted, published[f"roi_heads.{theirs}"][4:])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("box_head", "box_head")]
    + [(f"box_head_{n}", f"reid_box_heads.{i}") for i, n in enumerate(("2nd", "3rd"))],
)
def test_no_part_of_a_transformer_is_mixed_up(published, theirs, ours):
    converted = convert(published, "coat").weights
    old = f"roi_heads.{theirs}.transformer_encoder.blocks.scale2.0"
    new = f"roi_heads.{ours}.transformers.1"
    parts = {
        "patch2vec.bias": "to_tokens.bias",
        "vec2patch.embedding.weight": "from_tokens.linear.weight",
        "transblock.attention.query_embedding.weight": "encoder.0.attention.query.weight",
        "transblock.attention.key_embedding.weight": "encoder.0.attention.key.weight",
        "transblock.attention.value_embedding.weight": "encoder.0.attention.value.weight",
        "transblock.attention.output_linear.weight": "encoder.0.attention.output.weight",
        "transblock.norm1.bias": "encoder.0.norm1.bias",
        "transblock.norm2.bias": "encoder.0.norm2.bias",
        "transblock.ffn.conv.0.bias": "encoder.0.ffn.0.bias",
        "transblock.ffn.conv.3.bias": "encoder.0.ffn.2.bias",
    }
    for part, place in parts.items():
        assert torch.equal(converted[f"{new}.{place}"], published[f"{old}.{part}"]), part


def test_what_has_two_names_must_be_the_same(published):
    name = "roi_heads.box_head_1st.conv1.weight"
    published[name] = published[name] + 1
    with pytest.raises(KdpsError, match=r"box_head_1st\.conv1\.weight' and another entry .* diff"):
        convert(published, "coat")


def test_what_is_dropped_is_told(published):
    dropped = convert(published, "coat").dropped
    assert set(dropped.values()) == {
        "a layer that the published configs leave out",
        "a layer that the first stage leaves out",
    }
    parts = {name.removeprefix("roi_heads.").partition(".")[2] for name in dropped}
    assert parts == {
        "conv0.weight",
        "transformer_encoder.output_linear.0.weight",
        "transformer_encoder.output_linear.0.bias",
    }
    assert "roi_heads.box_head_2nd.conv0.weight" not in dropped


def test_both_tables_of_prw_get_the_rows_of_kdps(published):
    tables = {}
    for i, stage in enumerate(("2nd", "3rd")):
        tables[i] = published[f"roi_heads.reid_loss_{stage}.lut"] = torch.randn(PUBLIC_ROWS, 6)
    converted = convert(published, "coat").weights
    for i, table in tables.items():
        ours = converted[f"roi_heads.reid_predictors.{i}.oim.memory.table"]
        assert len(ours) == 483
        # Person 480 has row 478; 483 and 932 had none.
        assert torch.equal(ours[NUMBERS.index(480)], table[480 - 1])
        assert not ours[-2:].any()
