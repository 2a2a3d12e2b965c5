# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import json
import os
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from published_checkpoints import as_published, make_published

import kdps.modeling  # noqa: F401  (registers the models)
from kdps.checkpoint.convert import METHODS, convert
from kdps.config import get_cfg
from kdps.errors import KdpsError

# Whose rules, and the entries without a place here: counters of 53 frozen norms (4 more in the head
# of ROI-AlignPS, which has 10 of them), scales of 4 maps, and what the public code does not use.
VARIANTS = {
    "alignps": ("alignps", 53 + 4),
    "alignps-plus": ("alignps", 53 + 4),
    "roi-alignps": ("roi-alignps", 53 + 4 + 10 + 2 + 5 + 4),
}
variants = pytest.mark.parametrize("variant", VARIANTS)


def narrow_model(variant):
    cfg = get_cfg()
    name = variant.replace("-", "_")
    cfg.merge_from_file(f"configs/CUHK-SYSU/{name}_R_50.yaml")
    resnets = cfg.MODEL.RESNETS
    resnets.STEM_OUT_CHANNELS, resnets.RES2_OUT_CHANNELS, resnets.WIDTH_PER_GROUP = 4, 8, 2
    cfg.MODEL.FPN.OUT_CHANNELS = cfg.MODEL.REID_HEAD.EMBEDDING_DIM = 32
    cfg.MODEL.REID_HEAD.NUM_PIDS, cfg.MODEL.REID_HEAD.QUEUE_SIZE = 5, 4
    cfg.MODEL.DEVICE = "cpu"
    return build_model(cfg)


@variants
def test_every_entry_has_its_place(variant):
    method, dropped = VARIANTS[variant]
    converted = convert(make_published(variant), method)
    assert len(converted.dropped) == dropped
    assert all(converted.dropped.values())
    assert converted.weights.keys() == narrow_model(variant).state_dict().keys()


@variants
def test_back_and_forth(variant):
    method, _ = VARIANTS[variant]
    own = narrow_model(variant).state_dict()
    theirs = {"state_dict": as_published(own, method, variant), "meta": {"epoch": 24}}
    converted = convert(theirs, method).weights
    assert converted.keys() == own.keys()
    for name, tensor in own.items():
        assert torch.equal(converted[name], tensor), name


def test_an_unknown_entry_is_named():
    published = {**make_published("alignps"), "neck.extra.weight": torch.zeros(1)}
    with pytest.raises(KdpsError, match=r"^AlignPS: .* unknown entry 'neck.extra.weight'$"):
        convert({"state_dict": published}, "alignps")


def test_a_missing_part_is_named():
    published = make_published("alignps")
    del published["bbox_head.scales.0.scale"]
    with pytest.raises(KdpsError, match=r"no entry like '.*scales"):
        convert({"state_dict": published}, "alignps")


@pytest.mark.parametrize(("of", "taken_for"), [(0, 1), (1, 0)])
def test_the_two_are_told_apart(of, taken_for):
    names = ("alignps", "roi-alignps")
    with pytest.raises(KdpsError) as caught:
        convert({"state_dict": make_published(names[of])}, names[taken_for])
    title = METHODS[names[of]].title
    assert str(caught.value).endswith(f"; it looks like {title} (--from {names[of]})")


def test_a_checkpoint_of_another_code_base():
    with pytest.raises(KdpsError, match=r"; it looks like SeqNet \(--from seqnet\)$"):
        convert({"model": make_published("seqnet")}, "alignps")
    with pytest.raises(KdpsError, match=r"; it looks like AlignPS \(--from alignps\)$"):
        convert({"state_dict": make_published("alignps")}, "seqnet")


def test_a_checkpoint_of_kdps_says_so():
    ours = {"model": convert(make_published("alignps"), "alignps").weights}
    with pytest.raises(KdpsError, match="looks like a checkpoint of kdps"):
        convert(ours, "alignps")


def test_anchors_are_ordered_by_size_first():
    published = make_published("roi-alignps")
    # The number of the ratio, then that of the size.
    names = torch.tensor([10.0 * ratio + size for ratio in range(3) for size in range(5)])
    published["rpn_head.rpn_cls.bias"] = names
    published["rpn_head.rpn_reg.bias"] = (names[:, None] + torch.arange(4) / 10).flatten()
    weights = convert(published, "roi-alignps").weights
    head = "proposal_generator.rpn_head"
    ours = [10.0 * ratio + size for size in range(5) for ratio in range(3)]
    assert weights[f"{head}.objectness_logits.bias"].tolist() == ours
    deltas = weights[f"{head}.anchor_deltas.bias"].reshape(15, 4)
    assert deltas[:, 0].tolist() == ours
    torch.testing.assert_close(deltas[:, 3], deltas[:, 0] + 0.3)


def test_anchors_of_the_config_are_in_that_order():
    (cells,) = narrow_model("roi-alignps").proposal_generator.anchor_generator.cell_anchors
    sides = cells[:, 2:] - cells[:, :2]
    ratios, sizes = sides[:, 1] / sides[:, 0], sides.prod(dim=1).sqrt()
    torch.testing.assert_close(sizes, torch.tensor([32.0, 64, 128, 256, 512]).repeat_interleave(3))
    torch.testing.assert_close(ratios, torch.tensor([0.5, 1.0, 2.0]).repeat(5))
    torch.testing.assert_close(cells[:, :2], -cells[:, 2:])


def test_every_recorded_name_is_known():
    shared = os.environ.get("KDPS_SHARED")
    if not shared:
        pytest.skip("KDPS_SHARED does not name the folder of the reference data")
    spec = json.loads((Path(shared) / "parity" / "alignps" / "state_dict.json").read_text())
    assert spec["wrapper"] == f"checkpoint['{METHODS['alignps'].wrapper}']"
    made = {name for name in make_published("alignps") if not name.startswith("backbone.")}
    assert spec["entries"].keys() == made
