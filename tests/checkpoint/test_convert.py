# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import json
import os
import re
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from published_checkpoints import make_published

import kdps.modeling  # noqa: F401  (registers the model)
from kdps.checkpoint.convert import METHODS, convert
from kdps.checkpoint.prw_table import NUMBERS, PUBLIC_ROWS
from kdps.config import get_cfg
from kdps.errors import KdpsError

PUBLISHED = ("seqnet", "nae", "nae+", "oim", "coat")


@pytest.fixture
def seqnet():
    return make_published("seqnet")


@pytest.fixture
def nae():
    return make_published("nae")


@pytest.fixture
def oim():
    return make_published("oim")


@pytest.mark.parametrize("method", PUBLISHED)
def test_names_are_exactly_those_of_the_model(method):
    cfg = get_cfg()
    config = method.replace("+", "_plus")
    cfg.merge_from_file(f"configs/CUHK-SYSU/{config}_R_50_C4.yaml")
    cfg.MODEL.DEVICE = "cpu"
    expected = build_model(cfg).state_dict().keys()
    assert convert(make_published(method), method).weights.keys() == expected


@pytest.mark.parametrize("method", PUBLISHED)
def test_wrapped_or_not(method):
    published = make_published(method)
    wrapped = convert({"model": published, "optimizer": {}, "epoch": 19}, method)
    alone = convert(published, method)
    for name, tensor in alone.weights.items():
        assert torch.equal(wrapped.weights[name], tensor)
    assert wrapped.dropped.keys() - alone.dropped.keys() == {"optimizer", "epoch"}


@pytest.mark.parametrize("method", PUBLISHED)
def test_an_unknown_entry_is_named(method):
    published = {**make_published(method), "roi_heads.extra.weight": torch.zeros(1)}
    with pytest.raises(KdpsError, match=r": .* unknown entry 'roi_heads.extra.weight'$") as caught:
        convert(published, method)
    assert str(caught.value).startswith(METHODS[method].title)


@pytest.mark.parametrize(
    ("method", "prefix"),
    [
        *(("seqnet", "rpn.head.conv"), ("nae", "rpn.head.conv"), ("oim", "head.BN_111")),
        ("coat", "roi_heads.box_head_3rd.conv0"),
    ],
)
def test_a_missing_part_is_named(method, prefix):
    kept = {k: v for k, v in make_published(method).items() if not k.startswith(f"{prefix}.")}
    with pytest.raises(KdpsError) as caught:
        convert(kept, method)
    # As the rule has it, a regular expression.
    assert f"no entry like '{prefix}" in str(caught.value).replace("\\", "")


@pytest.mark.parametrize("method", PUBLISHED)
def test_no_single_entry_may_be_missing(method):
    published = make_published(method)
    dropped = convert(published, method).dropped
    for name, tensor in published.items():
        has_two_names = sum(other is tensor for other in published.values()) > 1
        if name in dropped or has_two_names or name.endswith("num_batches_tracked"):
            continue
        kept = {other: rows for other, rows in published.items() if other != name}
        with pytest.raises(KdpsError, match="the checkpoint has no"):
            convert(kept, method)


@pytest.mark.parametrize("of", PUBLISHED)
@pytest.mark.parametrize("taken_for", PUBLISHED)
def test_a_checkpoint_of_another_method_says_whose_it_is(of, taken_for):
    if of == taken_for:
        return
    end = re.escape(f"; it looks like {METHODS[of].title} (--from {of})")
    with pytest.raises(KdpsError, match=f"{end}$"):
        convert({"model": make_published(of)}, taken_for)


def test_a_checkpoint_of_kdps_says_so(nae):
    ours = {"model": convert(nae, "nae").weights}
    with pytest.raises(KdpsError, match="looks like a checkpoint of kdps, which needs no conv"):
        convert(ours, "nae")


def test_what_is_no_checkpoint():
    with pytest.raises(KdpsError, match="NAE: the checkpoint holds no weights but a int"):
        convert({"model": 3}, "nae")


# ---------------------------------------------------------------- SeqNet and NAE


def test_person_comes_first(seqnet):
    ours = convert(seqnet, "seqnet").weights["roi_heads.box_predictor.cls_score.weight"]
    theirs = seqnet["roi_heads.faster_rcnn_predictor.cls_score.weight"]
    assert torch.equal(ours[0], theirs[1])
    assert torch.equal(ours[1], theirs[0])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("faster_rcnn_predictor.bbox_pred.bias", "box_predictor.bbox_pred.bias"),
        ("box_predictor.bbox_pred.0.weight", "reid_predictor.bbox_pred.0.weight"),
        ("box_predictor.bbox_pred.1.running_var", "reid_predictor.bbox_pred.1.running_var"),
    ],
)
def test_only_the_box_of_the_person_is_kept(seqnet, theirs, ours):
    converted = convert(seqnet, "seqnet").weights[f"roi_heads.{ours}"]
    assert torch.equal(converted, seqnet[f"roi_heads.{theirs}"][4:])


def test_the_two_heads_are_not_mixed_up(seqnet):
    converted = convert(seqnet, "seqnet").weights
    for theirs, ours in (("box_head", "box_head"), ("reid_head", "reid_box_head")):
        assert torch.equal(
            converted[f"roi_heads.{ours}.res5.1.conv2.norm.weight"],
            seqnet[f"roi_heads.{theirs}.layer4.1.bn2.weight"],
        )


def test_memory_and_its_pointer(seqnet):
    converted = convert(seqnet, "seqnet").weights
    memory = "roi_heads.reid_predictor.oim.memory"
    assert torch.equal(converted[f"{memory}.table"], seqnet["roi_heads.reid_loss.lut"])
    assert torch.equal(converted[f"{memory}.queue"], seqnet["roi_heads.reid_loss.cq"])
    assert converted[f"{memory}.pointer"].item() == 0
    assert converted[f"{memory}.pointer"].dtype == torch.int64


@pytest.mark.parametrize(("method", "first"), [("seqnet", 1), ("nae", 0)])
def test_tables_of_prw_get_a_row_for_everyone(method, first):
    published = make_published(method)
    table = torch.randn(PUBLIC_ROWS, 6, generator=torch.Generator().manual_seed(1))
    published["roi_heads.reid_loss.lut"] = table
    ours = convert(published, method).weights["roi_heads.reid_predictor.oim.memory.table"]
    assert ours.shape == (483, 6)
    assert torch.equal(ours[NUMBERS.index(480)], table[480 - first])
    assert not ours[NUMBERS.index(932)].any()


def test_both_names_of_the_rpn_convolution(seqnet):
    newer = {
        name.replace("rpn.head.conv.", "rpn.head.conv.0.0."): tensor
        for name, tensor in seqnet.items()
    }
    assert newer.keys() != seqnet.keys()
    expected = convert(seqnet, "seqnet").weights.keys()
    assert convert(newer, "seqnet").weights.keys() == expected


def test_a_tensor_of_too_few_rows_is_named(seqnet):
    seqnet["roi_heads.box_predictor.bbox_pred.0.bias"] = torch.zeros(4)
    with pytest.raises(KdpsError, match=r"bbox_pred\.0\.bias' has 4 rows, not 8"):
        convert(seqnet, "seqnet")


def test_the_unused_classifier_is_dropped(nae):
    dropped = convert(nae, "nae").dropped
    assert dropped.keys() == {f"roi_heads.box_predictor.cls_score.{x}" for x in ("weight", "bias")}
    assert all("not use" in reason for reason in dropped.values())


def test_what_nae_plus_embeds_with_becomes_a_matrix():
    published = make_published("nae+")
    theirs = published["roi_heads.embedding_head.projectors.feat_res5.0.weight"]
    weights = convert(published, "nae+").weights
    ours = weights["roi_heads.reid_predictor.embedding_head.projectors.res5.0.weight"]
    assert theirs.shape == (3, 4, 1, 1)
    assert torch.equal(ours, theirs[:, :, 0, 0])
    # Nothing else tells it from NAE, in which kdps has the same entries.
    assert weights.keys() == convert(make_published("nae"), "nae").weights.keys()


@pytest.mark.parametrize(("of", "taken_for", "dims"), [("nae+", "nae", 4), ("nae", "nae+", 2)])
def test_nae_and_its_pixel_wise_variant_are_told_apart(of, taken_for, dims):
    name = r"feat_res4\.0\.weight"
    with pytest.raises(KdpsError, match=f"{name}' has {dims} dimensions, not {6 - dims}; it looks"):
        convert(make_published(of), taken_for)


# ------------------------------------------------------------------------ OIM-Net


def test_layers_are_found_by_their_numbers(oim):
    converted = convert(oim, "oim").weights
    for theirs, ours in (
        ("backbone.SpatialConvolution_11.bias", "backbone.res2.0.shortcut.bias"),
        ("backbone.BN_74.running_var", "backbone.res3.3.norm.running_var"),
        ("backbone.SpatialConvolution_100.weight", "backbone.res4.2.conv2.weight"),
        ("head.BN_118.weight", "roi_heads.box_head.res4.1.conv1.norm.weight"),
        ("head.BN_166.num_batches_tracked", "roi_heads.box_head.res5.2.norm.num_batches_tracked"),
    ):
        assert torch.equal(converted[ours], oim[theirs])


def test_two_logits_of_an_anchor_become_their_difference(oim):
    ours = convert(oim, "oim").weights["proposal_generator.rpn_head.objectness_logits.weight"]
    theirs = oim["rpn.rpn_cls_score.weight"]
    # Background and foreground of anchor 2; the sigmoid of the difference is the softmax.
    both = torch.stack([theirs[2], theirs[11]]).softmax(dim=0)
    torch.testing.assert_close(ours[2].sigmoid(), both[1])


def test_its_queue_has_a_pointer(oim):
    oim["unlabeled_matching_layer.tail"] = torch.tensor(3)
    assert convert(oim, "oim").weights["roi_heads.oim.memory.pointer"] == 3


def test_its_imagenet_weights(oim):
    resnet = {k: v for k, v in oim.items() if k.startswith(("backbone.", "head."))}
    converted = convert({**resnet, "fc.weight": torch.zeros(3)}, "oim-resnet")
    expected = convert(oim, "oim").weights
    assert len(converted.weights) > 200
    for name, tensor in converted.weights.items():
        assert name.startswith(("backbone.", "roi_heads.box_head."))
        assert torch.equal(tensor, expected[name])
    assert converted.dropped["fc.weight"] == "no part of the detector"


# --------------------------------------------------------------------- parity kit


@pytest.mark.parametrize(
    ("method", "folder", "dropped"),
    [("seqnet", "seqnet", 0), ("nae", "nae", 2), ("oim", "oimnet", 31), ("coat", "coat", 10)],
)
def test_every_published_name_is_known(method, folder, dropped):
    shared = os.environ.get("KDPS_SHARED")
    if not shared:
        pytest.skip("KDPS_SHARED does not name the folder of the reference data")
    spec = json.loads((Path(shared) / "parity" / folder / "state_dict.json").read_text())
    assert spec["wrapper"] == f"checkpoint['{METHODS[method].wrapper}']"
    state = {name: torch.zeros(entry["shape"]) for name, entry in spec["entries"].items()}
    assert state.keys() == make_published(method).keys()
    converted = convert({"model": state}, method)
    assert len(converted.dropped) == dropped
    # Each other one has its place, unless it is one of two names of a tensor.
    second_names = {name for name, entry in spec["entries"].items() if "alias_of" in entry}
    placed = len(state.keys() - converted.dropped.keys() - second_names)
    # Only the pointers of queues may be new.
    new = {"oim": 0, "coat": 2}.get(method, 1)
    assert len(converted.weights) == placed + new
