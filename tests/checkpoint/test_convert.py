# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import json
import os
import re
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

import kdps.modeling  # noqa: F401  (registers the model)
from kdps.checkpoint.convert import convert_seqnet
from kdps.config import get_cfg
from kdps.errors import KdpsError
from kdps.train_net import main
from kdps.utils.testing_set import TINY_TEST, register_tiny_sets


def resnet_entries(prefix, layer, blocks):
    """Names and shapes of a stage of bottlenecks; channel numbers do not matter here."""
    entries = {}
    for block in range(blocks):
        for i in (1, 2, 3):
            entries[f"{prefix}.{layer}.{block}.conv{i}.weight"] = (2, 2, 1, 1)
            entries.update(norm_entries(f"{prefix}.{layer}.{block}.bn{i}", 2))
    entries[f"{prefix}.{layer}.0.downsample.0.weight"] = (2, 2, 1, 1)
    entries.update(norm_entries(f"{prefix}.{layer}.0.downsample.1", 2))
    return entries


def norm_entries(prefix, size):
    names = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{prefix}.{n}": (size,) for n in names}, f"{prefix}.num_batches_tracked": ()}


def linear_entries(prefix, *shape):
    return {f"{prefix}.weight": shape, f"{prefix}.bias": shape[:1]}


@pytest.fixture
def published():
    """A checkpoint with the names of SeqNet's and small tensors of distinct numbers."""
    entries = {"backbone.conv1.weight": (2, 3, 7, 7), **norm_entries("backbone.bn1", 2)}
    for i, blocks in enumerate((3, 4, 6), start=1):
        entries.update(resnet_entries("backbone", f"layer{i}", blocks))
    for head in ("box_head", "reid_head"):
        entries.update(resnet_entries(f"roi_heads.{head}", "layer4", 3))
    entries.update(
        {
            **linear_entries("rpn.head.conv", 2, 2, 3, 3),
            **linear_entries("rpn.head.cls_logits", 15, 2, 1, 1),
            **linear_entries("rpn.head.bbox_pred", 60, 2, 1, 1),
            **linear_entries("roi_heads.faster_rcnn_predictor.cls_score", 2, 4),
            **linear_entries("roi_heads.faster_rcnn_predictor.bbox_pred", 8, 4),
            **linear_entries("roi_heads.box_predictor.bbox_pred.0", 8, 4),
            **norm_entries("roi_heads.box_predictor.bbox_pred.1", 8),
            **linear_entries("roi_heads.embedding_head.projectors.feat_res4.0", 3, 2),
            **norm_entries("roi_heads.embedding_head.projectors.feat_res4.1", 3),
            **linear_entries("roi_heads.embedding_head.projectors.feat_res5.0", 3, 4),
            **norm_entries("roi_heads.embedding_head.projectors.feat_res5.1", 3),
            **norm_entries("roi_heads.embedding_head.rescaler", 1),
            "roi_heads.reid_loss.lut": (5, 6),
            "roi_heads.reid_loss.cq": (4, 6),
        }
    )
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in entries.items()}


def test_names_are_exactly_those_of_the_model(published):
    cfg = get_cfg()
    cfg.merge_from_file("configs/CUHK-SYSU/seqnet_R_50_C4.yaml")
    cfg.MODEL.DEVICE = "cpu"
    assert convert_seqnet(published).keys() == build_model(cfg).state_dict().keys()


def test_wrapped_or_not(published):
    wrapped = convert_seqnet({"model": published, "optimizer": {}, "epoch": 19})
    for name, tensor in convert_seqnet(published).items():
        assert torch.equal(wrapped[name], tensor)


def test_person_comes_first(published):
    ours = convert_seqnet(published)["roi_heads.box_predictor.cls_score.weight"]
    theirs = published["roi_heads.faster_rcnn_predictor.cls_score.weight"]
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
def test_only_the_box_of_the_person_is_kept(published, theirs, ours):
    converted = convert_seqnet(published)[f"roi_heads.{ours}"]
    assert torch.equal(converted, published[f"roi_heads.{theirs}"][4:])


def test_the_two_heads_are_not_mixed_up(published):
    converted = convert_seqnet(published)
    for theirs, ours in (("box_head", "box_head"), ("reid_head", "reid_box_head")):
        assert torch.equal(
            converted[f"roi_heads.{ours}.res5.1.conv2.norm.weight"],
            published[f"roi_heads.{theirs}.layer4.1.bn2.weight"],
        )


def test_memory_and_its_pointer(published):
    converted = convert_seqnet(published)
    memory = "roi_heads.reid_predictor.oim.memory"
    assert torch.equal(converted[f"{memory}.table"], published["roi_heads.reid_loss.lut"])
    assert torch.equal(converted[f"{memory}.queue"], published["roi_heads.reid_loss.cq"])
    assert converted[f"{memory}.pointer"].item() == 0
    assert converted[f"{memory}.pointer"].dtype == torch.int64


def test_both_names_of_the_rpn_convolution(published):
    newer = {
        name.replace("rpn.head.conv.", "rpn.head.conv.0.0."): tensor
        for name, tensor in published.items()
    }
    assert newer.keys() != published.keys()
    assert convert_seqnet(newer).keys() == convert_seqnet(published).keys()


def test_an_unknown_entry_is_named(published):
    published["roi_heads.extra.weight"] = torch.zeros(1)
    with pytest.raises(KdpsError, match="SeqNet: .* unknown entry 'roi_heads.extra.weight'"):
        convert_seqnet(published)


def test_a_missing_part_is_named(published):
    for name in ("weight", "bias"):
        del published[f"rpn.head.conv.{name}"]
    with pytest.raises(KdpsError, match=r"SeqNet: .* no entry like .*rpn.*head.*conv"):
        convert_seqnet(published)


def test_a_tensor_of_too_few_rows_is_named(published):
    published["roi_heads.box_predictor.bbox_pred.0.bias"] = torch.zeros(4)
    with pytest.raises(KdpsError, match=r"bbox_pred\.0\.bias' has 4 rows, not 8"):
        convert_seqnet(published)


def published_form(own, published):
    """The weights of our model as SeqNet would have saved them; ``published`` gives the names."""
    names = list(published)
    numbered = {name: torch.full_like(published[name], i) for i, name in enumerate(names)}
    theirs = {}
    for ours, number in convert_seqnet(numbered).items():
        if ours.endswith(".pointer"):
            continue
        name, tensor = names[int(number.flatten()[0])], own[ours]
        if "cls_score" in name:
            tensor = tensor.flip(0)
        elif published[name].shape[:1] == (8,) and number.shape[:1] == (4,):
            tensor = torch.cat([torch.zeros_like(tensor), tensor])
        theirs[name] = tensor
    return theirs


def test_documented_conversion_and_evaluation_of_a_file(published, tmp_path, monkeypatch):
    text = Path("configs/README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (command,) = re.findall(r"`train_net\.py (--eval-only .*?)`", text)
    _, _, config, key, file = command.split()
    narrow = [
        *("MODEL.DEVICE", "cpu", "MODEL.RESNETS.STEM_OUT_CHANNELS", "4"),
        *("MODEL.RESNETS.RES2_OUT_CHANNELS", "8", "MODEL.RESNETS.WIDTH_PER_GROUP", "2"),
    ]
    cfg = get_cfg()
    cfg.merge_from_file(config)
    cfg.merge_from_list([*narrow, "MODEL.REID_HEAD.NUM_PIDS", 5, "MODEL.REID_HEAD.QUEUE_SIZE", 4])
    own = build_model(cfg).state_dict()
    config = str(Path(config).resolve())
    monkeypatch.chdir(tmp_path)
    # What else the public code saves with the weights.
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[16])
    saved = {
        "model": published_form(own, published),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": scheduler.state_dict(),
        "epoch": 19,
    }
    torch.save(saved, "published.pth")

    exec(compile(code, "configs/README.md", "exec"), {})
    converted = torch.load(file, weights_only=True)
    assert converted.keys() == own.keys()
    assert all(torch.equal(converted[name], own[name]) for name in own)

    register_tiny_sets(tmp_path / "images")
    sizes = ["INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "100"]
    data = [
        "DATASETS.TEST",
        f"('{TINY_TEST}',)",
        "DATALOADER.NUM_WORKERS",
        "0",
        "OUTPUT_DIR",
        "run",
    ]
    flags = ["--eval-only", "--config-file", config, key, file]
    assert main([*flags, *narrow, *sizes, *data]) == 0
    assert Path("run/inference/person_search_results.json").is_file()


def test_every_published_name_is_known(parity_names):
    state = {name: torch.zeros(shape) for name, shape in parity_names.items()}
    # Each has its place; only the queue's pointer is new.
    assert len(convert_seqnet(state)) == len(state) + 1


@pytest.fixture
def parity_names():
    shared = os.environ.get("KDPS_SHARED")
    if not shared:
        pytest.skip("KDPS_SHARED does not name the folder of the reference data")
    spec = json.loads((Path(shared) / "parity/seqnet/state_dict.json").read_text())
    return {name: entry["shape"] for name, entry in spec["entries"].items()}
