# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.utils import comm

from kdps.config.validation import check_cfg, check_inference
from kdps.errors import KdpsError
from kdps.utils.testing_set import TINY_TEST, register_tiny_sets, tiny_training_cfg


@pytest.fixture(scope="module", autouse=True)
def _sets(tmp_path_factory: pytest.TempPathFactory) -> None:
    register_tiny_sets(tmp_path_factory.mktemp("tiny_set"))


def test_a_sound_config_passes(tmp_path: Path) -> None:
    cfg = tiny_training_cfg(tmp_path / "made" / "later")
    check_cfg(cfg)
    check_cfg(cfg, eval_only=True)
    assert not (tmp_path / "made").exists()


CROPS = ("MODEL.META_ARCHITECTURE", "CropReID")
SAMPLED = (*CROPS, "DATALOADER.SAMPLER_TRAIN", "IdentitySampler")
PLACED = (*SAMPLED, "TEST.PERSON_SEARCH.BOXES", "annotated")
ANCHOR_FREE = ("MODEL.META_ARCHITECTURE", "AlignPS")
FAULTS = [
    (("MODEL.META_ARCHITECTURE", "Foo"), "META_ARCHITECTURE: unknown .*known: .*PersonSearchRCNN"),
    (("MODEL.BACKBONE.NAME", "Foo"), "BACKBONE.NAME: unknown .*known: .*build_tiny_resnet"),
    (("MODEL.PROPOSAL_GENERATOR.NAME", "Foo"), "GENERATOR.NAME: unknown .*: .*PersonSearchRPN"),
    (("MODEL.ANCHOR_GENERATOR.NAME", "Foo"), "GENERATOR.NAME: unknown .*RoundedAnchorGenerator"),
    (("MODEL.ROI_HEADS.NAME", "Foo"), "ROI_HEADS.NAME: unknown value 'Foo'; .*SeqROIHeads"),
    (("MODEL.ROI_HEADS.NAME", "StandardROIHeads"), "ROI_HEADS.NAME: 'StandardROIHeads' only det"),
    (("MODEL.ROI_BOX_HEAD.NAME", "Foo"), "ROI_BOX_HEAD.NAME: unknown .*known: .*TinyBoxHead"),
    (("MODEL.REID_HEAD.NAME", "Foo"), "REID_HEAD.NAME: unknown .*known: .*NormAwareEmbedding"),
    (("MODEL.ROI_BOX_HEAD.NAME", ""), "ROI_BOX_HEAD.NAME: unknown value ''"),
    (("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"), "GENERATOR.NAME: unknown"),
    (("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "Foo"), "POOLER_TYPE: unknown value 'Foo'; .*ROIAlign"),
    (("MODEL.ROI_BOX_HEAD.REGION_POOL", "Foo"), "REGION_POOL: unknown .*known: average, max"),
    (("MODEL.ROI_BOX_HEAD.NORM", "Foo"), "ROI_BOX_HEAD.NORM: unknown value 'Foo'; .*FrozenBN"),
    (("MODEL.ROI_HEADS.NUM_CLASSES", 80), "ROI_HEADS.NUM_CLASSES: must be 1, for persons, not 80"),
    (("MODEL.ROI_HEADS.IN_FEATURES", ["res3"]), r"'res3' is none of .*OUT_FEATURES \(res4\)"),
    (
        (
            *("MODEL.ROI_HEADS.IN_FEATURES", ["p2"], "MODEL.BACKBONE.NAME", "build_mobilenet_v2"),
            *("MODEL.ROI_BOX_HEAD.NAME", "Res5BoxHead"),
        ),
        r"IN_FEATURES: must be \['res4'\], what build_mobilenet_v2 makes",
    ),
    (("SOLVER.OPTIMIZER", "Foo"), "SOLVER.OPTIMIZER: unknown value 'Foo'; known: Adam, AdamW, SGD"),
    (("INPUT.MIN_VISIBLE", 1.5), r"INPUT.MIN_VISIBLE: 1.5 is outside \[0, 1\]"),
    ((*ANCHOR_FREE, "MODEL.AFA.BOTTOM_UP", "Foo"), "AFA.BOTTOM_UP: unknown .*build_tiny_resnet"),
    (
        ("MODEL.ROI_HEADS.IN_FEATURES", ["res3", "res4"]),
        r"IN_FEATURES: must be one map of build_tiny_resnet, not \['res3', 'res4'\]; regions",
    ),
    (
        ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, False, False, True]),
        "DEFORM_ON_PER_STAGE: the fourth stage, which works on pooled regions, stays plain",
    ),
    (
        (*ANCHOR_FREE, "MODEL.ALIGNPS.NORM", "BN"),
        "ALIGNPS.NORM: unknown value 'BN'; .* GN, LN",
    ),
    ((*ANCHOR_FREE, "MODEL.ALIGNPS.NORM", "Foo"), "ALIGNPS.NORM: unknown value 'Foo'; .*GN"),
    (("MODEL.RESNETS.NORM", "Foo"), "RESNETS.NORM: unknown value 'Foo'; known: .*FrozenBN"),
    (("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full-model"), "CLIP_TYPE: unknown .*full_model"),
    (("SOLVER.LR_SCHEDULER_NAME", "Foo"), "LR_SCHEDULER_NAME: unknown .*WarmupCosineLR"),
    (("TEST.PERSON_SEARCH.DETECTION_SCORE_THRESH", 50.0), "DETECTION_SCORE_THRESH: 50.0 is outs"),
    (("TEST.AUG.ENABLED", True), "TEST.AUG.ENABLED: must be False"),
    (("MODEL.DEVICE", "gpu"), "MODEL.DEVICE: no device 'gpu', try cuda or cpu"),
    (("INPUT.FORMAT", "XYZ"), "INPUT.FORMAT: unknown value 'XYZ'; known: BGR, RGB"),
    (("INPUT.RESIZE", "x"), "INPUT.RESIZE: unknown value 'x'; known: shortest_edge, shortest_edg"),
    (("TEST.BEST_METRIC", "mAP"), "BEST_METRIC: 'mAP' is not .*known: person_search/mAP, "),
    (("TEST.BEST_METRIC", "person_search_gt_boxes/mAP"), "BEST_METRIC: 'person_search_gt_boxes"),
    (("TEST.BEST_METRIC", "bbox/AP"), "BEST_METRIC: 'bbox/AP' is not reported"),
    (("MODEL.REID_HEAD.NUM_PIDS", -2), "MODEL.REID_HEAD.NUM_PIDS: must be at least -1, not -2"),
    (("MODEL.REID_HEAD.QUEUE_SIZE", -2), "MODEL.REID_HEAD.QUEUE_SIZE: must be at least -1"),
    (("MODEL.REID_HEAD.EMBEDDING_DIM", 1), "MODEL.REID_HEAD.EMBEDDING_DIM: must be at least 2"),
    (("MODEL.REID_HEAD.OIM_MOMENTUM", 1.5), "MODEL.REID_HEAD.OIM_MOMENTUM: 1.5 is outside"),
    (("MODEL.PERSON_SEARCH.SIZE_DIVISIBILITY", -1), "SIZE_DIVISIBILITY: must be at least 0"),
    (("DATALOADER.NUM_WORKERS", -1), "DATALOADER.NUM_WORKERS: must be at least 0"),
    (("TEST.IMS_PER_BATCH", 0), "TEST.IMS_PER_BATCH: must be at least 1"),
    (
        (*CROPS, *PLACED[4:]),
        "SAMPLER_TRAIN: .TrainingSampler. is not supported with CropReID, only",
    ),
    (PLACED[2:4], "SAMPLER_TRAIN: 'IdentitySampler' is not supported with PersonSearchRCNN"),
    ((*PLACED, "DATALOADER.INSTANCES_PER_IDENTITY", 0), "PER_IDENTITY: must be at least 1, not 0"),
    (
        (*PLACED, "SOLVER.IMS_PER_BATCH", 6),
        r"PER_IDENTITY: batches of 6 crops per process \(.*\) cannot be made of 4 of each identity",
    ),
    (
        (*PLACED, "SOLVER.IMS_PER_BATCH", 8, "DISTILLATION.ENABLED", True),
        "DISTILLATION.ENABLED: CropReID teaches, it is no student",
    ),
    ((*PLACED, "MODEL.ROI_BOX_HEAD.NAME", "Foo"), "ROI_BOX_HEAD.NAME: unknown .*TinyBoxHead"),
    ((*PLACED, "MODEL.ROI_BOX_HEAD.NORM", "Foo"), "ROI_BOX_HEAD.NORM: unknown value 'Foo'"),
    ((*PLACED, "MODEL.ROI_BOX_HEAD.REGION_POOL", "Foo"), "REGION_POOL: unknown value 'Foo'"),
    (
        (*PLACED, "MODEL.ROI_HEADS.IN_FEATURES", ["res3", "res4"]),
        r"IN_FEATURES: must be the one map .* CropReID takes, not \['res3', 'res4'\]",
    ),
    (("TEST.PERSON_SEARCH.BOXES", "no.npz"), "PERSON_SEARCH.BOXES: no such file: no.npz"),
    (SAMPLED, "PERSON_SEARCH.BOXES: empty, but CropReID finds nobody itself"),
    ((*PLACED, "TEST.PERSON_SEARCH.BOX_SHIFT", -0.1), "BOX_SHIFT: must be 0 or more, not -0.1"),
    (("TEST.PERSON_SEARCH.BOX_SHIFT", 0.1), "BOX_SHIFT: 0.1 moves the boxes of .*, which is empty"),
    (
        (*PLACED, "INPUT.RANDOM_FLIP", "vertical"),
        "RANDOM_FLIP: crops are .*not 'vertical'",
    ),
    (("INPUT.PERSON_CROPS.SIZE", (256,)), r"PERSON_CROPS.SIZE: must be height and .* not \(256,\)"),
    (("INPUT.PERSON_CROPS.SIZE", (0, 16)), "PERSON_CROPS.SIZE: must be height and width"),
    (("INPUT.PERSON_CROPS.ALPHA", -5.0), "PERSON_CROPS.ALPHA: must be 0 or more"),
    (("INPUT.PERSON_CROPS.ERASING", 50.0), r"PERSON_CROPS.ERASING: 50.0 is outside \[0, 1\]"),
    (("MODEL.REID_HEAD.LABEL_SMOOTHING", 2.0), "LABEL_SMOOTHING: 2.0 is outside"),
    (("INPUT.MIN_SIZE_TEST", -1), "INPUT.MIN_SIZE_TEST: must be at least 0"),
    (
        ("TEST.PERSON_SEARCH.SCORE_THRESH", 50.0),
        "PERSON_SEARCH.SCORE_THRESH: must be between 0 and 1, not 50",
    ),
    (("DATASETS.TEST", ("nope",)), "DATASETS.TEST: unknown data set 'nope'; known: .*tiny_test"),
    (("DATASETS.TEST", ("tiny_train",)), "DATASETS.TEST: 'tiny_train' has no search protocol"),
    (("TEST.PERSON_SEARCH.GALLERY_SIZES", (50,)), "has no gallery size 50; it has only its"),
    (("DATASETS.TRAIN", ()), "DATASETS.TRAIN: empty"),
    (("DATASETS.TRAIN", ("nope",)), "DATASETS.TRAIN: unknown data set 'nope'; known: .*tiny_train"),
    (("SOLVER.MAX_ITER", 0), "SOLVER.MAX_ITER: must be at least 1"),
    (("SOLVER.BASE_LR", 0.0), "SOLVER.BASE_LR: must be above 0"),
    (("SOLVER.CHECKPOINT_PERIOD", 0), "SOLVER.CHECKPOINT_PERIOD: must be at least 1"),
    (("SOLVER.IMS_PER_BATCH", 0), "SOLVER.IMS_PER_BATCH: 0 images cannot be shared evenly"),
    (("SOLVER.STEPS", (6, 900)), r"SOLVER.STEPS: \[900\] lie beyond SOLVER.MAX_ITER 8"),
    (("SOLVER.AMP.ENABLED", True), "SOLVER.AMP.PRECISION: float16 needs a GPU"),
    (("SOLVER.AMP.PRECISION", "half"), "SOLVER.AMP.PRECISION: unknown value 'half'; known: bfloat"),
    (
        ("TEST.PRECISION", "double"),
        "TEST.PRECISION: unknown value 'double'; known: bfloat16, float",
    ),
    (("DATALOADER.ASPECT_RATIO_GROUPING", True), "DATALOADER.ASPECT_RATIO_GROUPING: must be"),
    (("DATALOADER.SAMPLER_TRAIN", "Other"), "DATALOADER.SAMPLER_TRAIN: 'Other' is not supported"),
    (("TEST.EVAL_PERIOD", -1), "TEST.EVAL_PERIOD: must be 0"),
    (("DATASETS.TEST", ()), "TEST.EVAL_PERIOD: is 4, but DATASETS.TEST is empty"),
    (("LOG.PERIOD", 0), "LOG.PERIOD: must be at least 1"),
    (("LOG.SECONDS", 0.0), "LOG.SECONDS: must be above 0"),
    (("OUTPUT_DIR", ""), "OUTPUT_DIR: must not be empty"),
]


@pytest.mark.parametrize(("opts", "message"), FAULTS, ids=[f"{o[-2]}-{o[-1]}" for o, _ in FAULTS])
def test_fault_is_one_line_with_its_key(tmp_path: Path, opts: Any, message: str) -> None:
    with pytest.raises(KdpsError, match=message) as caught:
        check_cfg(tiny_training_cfg(tmp_path, *opts))
    assert "\n" not in str(caught.value)


def test_scaled_periods_stay_above_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "get_world_size", lambda: 16)
    cfg = tiny_training_cfg(tmp_path, "SOLVER.REFERENCE_WORLD_SIZE", 4)
    check_cfg(cfg)
    cfg.SOLVER.CHECKPOINT_PERIOD = 2
    with pytest.raises(KdpsError, match="CHECKPOINT_PERIOD: 2 becomes 0 .* 4 is scaled to 16 proc"):
        check_cfg(cfg)


@pytest.mark.parametrize("metric", ["person_search/mAP", "person_search_g5/mAP"])
def test_best_metric_must_be_of_a_gallery_size_that_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    sizes = ("TEST.PERSON_SEARCH.GALLERY_SIZES", (2, 4))
    monkeypatch.setitem(vars(MetadataCatalog.get(TINY_TEST)), "gallery_sizes", (2, 4))
    cfg = tiny_training_cfg(tmp_path, *sizes, "TEST.BEST_METRIC", metric)
    with pytest.raises(KdpsError, match=f"BEST_METRIC: '{metric}' .*person_search_g2/mAP"):
        check_cfg(cfg)
    check_cfg(cfg, eval_only=True)
    check_cfg(tiny_training_cfg(tmp_path, *sizes, "TEST.BEST_METRIC", "person_search_g4/mAP"))


@pytest.mark.parametrize(
    "opts",
    [
        ("TEST.BEST_METRIC", "detection/recall"),
        ("TEST.BEST_METRIC", "person_search_gt_boxes/top1", "TEST.PERSON_SEARCH.GT_BOXES", True),
        ("TEST.BEST_METRIC", "bbox/AP50", "TEST.COCO_METRICS", True),
        ("TEST.BEST_METRIC", "anything", "DATASETS.TEST", (), "TEST.EVAL_PERIOD", 0),
    ],
)
def test_best_metric_may_be_any_that_is_reported(tmp_path: Path, opts: Any) -> None:
    check_cfg(tiny_training_cfg(tmp_path, *opts))


def test_names_are_checked_for_inference_alone(tmp_path: Path) -> None:
    with pytest.raises(KdpsError, match=r"MODEL\.META_ARCHITECTURE: unknown value 'Foo'"):
        check_inference(tiny_training_cfg(tmp_path, "MODEL.META_ARCHITECTURE", "Foo"))


def test_another_architecture_may_have_heads_that_only_detect(tmp_path: Path) -> None:
    opts = ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.ROI_HEADS.NAME")
    check_inference(tiny_training_cfg(tmp_path, *opts, "StandardROIHeads"))


def test_evaluation_is_not_stopped_by_what_only_training_uses(tmp_path: Path) -> None:
    cfg = tiny_training_cfg(tmp_path, "DATASETS.TRAIN", ("nope",), "SOLVER.IMS_PER_BATCH", 0)
    check_cfg(cfg, eval_only=True)
    with pytest.raises(KdpsError, match=r"DATASETS\.TEST: empty, so there is nothing to evaluate"):
        check_cfg(tiny_training_cfg(tmp_path, "DATASETS.TEST", ()), eval_only=True)


def test_batch_must_divide_among_the_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    with pytest.raises(KdpsError, match="4 images cannot be shared evenly among 3 processes"):
        check_cfg(tiny_training_cfg(tmp_path))
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    check_cfg(tiny_training_cfg(tmp_path))


def test_a_missing_gpu_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(KdpsError, match="MODEL.DEVICE: is 'cuda', but there is no usable GPU"):
        check_cfg(tiny_training_cfg(tmp_path, "MODEL.DEVICE", "cuda"))


def test_output_dir_must_be_a_folder_one_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KdpsError, match=r"OUTPUT_DIR: .*file is not a folder"):
        check_cfg(tiny_training_cfg(tmp_path / "file" / "output"))
    # Root may write everywhere, so a closed folder is simulated.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(KdpsError, match="OUTPUT_DIR: .* is not writable"):
        check_cfg(tiny_training_cfg(tmp_path))
