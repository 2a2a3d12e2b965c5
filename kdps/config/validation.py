# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Checks of a config that would otherwise fail after hours, or silently do something else."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from kdps.config.names import check_known, check_names
from kdps.engine.mixed_precision import TEST_PRECISIONS, TRAINING_PRECISIONS, scales_loss
from kdps.engine.optimizer import OPTIMIZERS
from kdps.errors import KdpsError, one_line
from kdps.evaluation.evaluation import reported_metrics
from kdps.evaluation.settings import SearchSettings

_CLIP_TYPES = ("value", "norm", "full_model")
_SCHEDULERS = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR")
# What COCOEvaluator reports of boxes.
_COCO_METRICS = tuple(f"bbox/{name}" for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"))


def check_cfg(cfg: CfgNode, *, eval_only: bool = False) -> None:
    """Check the keys of a config against each other, the registered data sets and the machine.

    Args:
        cfg: the merged config.
        eval_only: leave out what only training uses.

    Raises:
        KdpsError: the first fault found; the message names its key.
    """
    check_inference(cfg)
    _check_test_sets(cfg)
    if not eval_only:
        _check_training(cfg)
    elif not cfg.DATASETS.TEST:
        raise KdpsError("DATASETS.TEST: empty, so there is nothing to evaluate")
    _check_output_dir(cfg.OUTPUT_DIR)


def check_inference(cfg: CfgNode) -> None:
    """Check what running the model on images needs; data sets and OUTPUT_DIR play no part.

    Raises:
        KdpsError: as ``check_cfg``.
    """
    _check_device(cfg)
    check_names(cfg)
    _check_sizes(cfg)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise KdpsError(message)


def _check_device(cfg: CfgNode) -> None:
    name = cfg.MODEL.DEVICE
    try:
        device = torch.device(name)
    except RuntimeError as error:
        # The first sentence names all devices that torch has.
        reason = one_line(error).partition(": ")[0]
        raise KdpsError(f"MODEL.DEVICE: no device {name!r}, try cuda or cpu ({reason})") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise KdpsError(
            f"MODEL.DEVICE: is {name!r}, but there is no usable GPU; run on the CPU with "
            "MODEL.DEVICE cpu"
        )


def _check_sizes(cfg: CfgNode) -> None:
    at_least = {
        "MODEL.REID_HEAD.NUM_PIDS": (cfg.MODEL.REID_HEAD.NUM_PIDS, -1),
        "MODEL.REID_HEAD.QUEUE_SIZE": (cfg.MODEL.REID_HEAD.QUEUE_SIZE, -1),
        "MODEL.REID_HEAD.EMBEDDING_DIM": (cfg.MODEL.REID_HEAD.EMBEDDING_DIM, 2),
        "MODEL.PERSON_SEARCH.SIZE_DIVISIBILITY": (cfg.MODEL.PERSON_SEARCH.SIZE_DIVISIBILITY, 0),
        "DATALOADER.NUM_WORKERS": (cfg.DATALOADER.NUM_WORKERS, 0),
        "TEST.IMS_PER_BATCH": (cfg.TEST.IMS_PER_BATCH, 1),
        # 0 leaves the size as it is.
        "INPUT.MIN_SIZE_TEST": (cfg.INPUT.MIN_SIZE_TEST, 0),
        "INPUT.MAX_SIZE_TEST": (cfg.INPUT.MAX_SIZE_TEST, 1),
    }
    for key, (value, minimum) in at_least.items():
        _require(value >= minimum, f"{key}: must be at least {minimum}, not {value}")
    node = cfg.TEST.PERSON_SEARCH
    shares = {
        "TEST.PERSON_SEARCH.DETECTION_SCORE_THRESH": node.DETECTION_SCORE_THRESH,
        "INPUT.MIN_VISIBLE": cfg.INPUT.MIN_VISIBLE,
        "MODEL.REID_HEAD.OIM_MOMENTUM": cfg.MODEL.REID_HEAD.OIM_MOMENTUM,
    }
    for key, value in shares.items():
        _require(0.0 <= value <= 1.0, f"{key}: {value} is outside [0, 1]")
    _check_person_crops(cfg)
    SearchSettings.from_config(cfg)
    check_known("TEST.PRECISION", cfg.TEST.PRECISION, TEST_PRECISIONS)
    _require(not cfg.TEST.AUG.ENABLED, "TEST.AUG.ENABLED: must be False, it is not supported")


def _check_person_crops(cfg: CfgNode) -> None:
    boxes, crops = cfg.TEST.PERSON_SEARCH.BOXES, cfg.INPUT.PERSON_CROPS
    key = "TEST.PERSON_SEARCH.BOXES"
    _require(boxes in ("", "annotated") or Path(boxes).is_file(), f"{key}: no such file: {boxes}")
    _require(
        bool(boxes) or cfg.MODEL.META_ARCHITECTURE != "CropReID",
        f"{key}: empty, but CropReID finds nobody itself; name a detections file or 'annotated'",
    )
    shift = cfg.TEST.PERSON_SEARCH.BOX_SHIFT
    _require(shift >= 0, f"TEST.PERSON_SEARCH.BOX_SHIFT: must be 0 or more, not {shift}")
    _require(
        bool(boxes) or not shift,
        f"TEST.PERSON_SEARCH.BOX_SHIFT: {shift} moves the boxes of {key}, which is empty",
    )
    _require(
        cfg.INPUT.RANDOM_FLIP != "vertical" or cfg.MODEL.META_ARCHITECTURE != "CropReID",
        "INPUT.RANDOM_FLIP: crops are mirrored ('horizontal') or not ('none'), not 'vertical'",
    )
    sides = tuple(crops.SIZE)
    _require(
        len(sides) == 2 and all(isinstance(x, int) and x >= 1 for x in sides),
        f"INPUT.PERSON_CROPS.SIZE: must be height and width in pixels, not {sides}",
    )
    for name in ("PADDING", "ALPHA"):
        _require(crops[name] >= 0, f"INPUT.PERSON_CROPS.{name}: must be 0 or more")
    for key, value in (
        ("INPUT.PERSON_CROPS.ERASING", crops.ERASING),
        ("MODEL.REID_HEAD.LABEL_SMOOTHING", cfg.MODEL.REID_HEAD.LABEL_SMOOTHING),
    ):
        _require(0.0 <= value <= 1.0, f"{key}: {value} is outside [0, 1]")


def _check_registered(key: str, names: tuple[str, ...]) -> None:
    known = DatasetCatalog.list()
    for name in names:
        if name not in known:
            ours = [n for n in known if _evaluator_type(n) == "person_search"]
            raise KdpsError(f"{key}: unknown data set {name!r}; known: {', '.join(sorted(ours))}")


def _evaluator_type(name: str) -> str | None:
    return MetadataCatalog.get(name).get("evaluator_type", None)


def _check_test_sets(cfg: CfgNode) -> None:
    _check_registered("DATASETS.TEST", cfg.DATASETS.TEST)
    for name in cfg.DATASETS.TEST:
        metadata = MetadataCatalog.get(name)
        if metadata.get("protocol_loader", None) is None:
            raise KdpsError(f"DATASETS.TEST: {name!r} has no search protocol, it is no test set")
        sizes = metadata.get("gallery_sizes", ())
        for size in cfg.TEST.PERSON_SEARCH.GALLERY_SIZES:
            if size not in sizes:
                known = ", ".join(map(str, sizes)) or "only its default gallery"
                raise KdpsError(
                    f"TEST.PERSON_SEARCH.GALLERY_SIZES: {name!r} has no gallery size {size}; "
                    f"it has {known}"
                )


def _check_training(cfg: CfgNode) -> None:
    _require(bool(cfg.DATASETS.TRAIN), "DATASETS.TRAIN: empty, so there is nothing to train on")
    _check_registered("DATASETS.TRAIN", cfg.DATASETS.TRAIN)
    solver, world = cfg.SOLVER, comm.get_world_size()
    _require(solver.MAX_ITER >= 1, f"SOLVER.MAX_ITER: must be at least 1, not {solver.MAX_ITER}")
    _require(solver.BASE_LR > 0, f"SOLVER.BASE_LR: must be above 0, not {solver.BASE_LR}")
    _require(
        solver.CHECKPOINT_PERIOD >= 1,
        f"SOLVER.CHECKPOINT_PERIOD: must be at least 1, not {solver.CHECKPOINT_PERIOD}",
    )
    batch = solver.IMS_PER_BATCH
    # With a reference world size Detectron2 scales the batch to the processes there are.
    shares = solver.REFERENCE_WORLD_SIZE or world
    _require(
        batch >= shares and batch % shares == 0,
        f"SOLVER.IMS_PER_BATCH: {batch} images cannot be shared evenly among {shares} processes",
    )
    _require(
        not cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        "DATALOADER.ASPECT_RATIO_GROUPING: must be False, its buckets cannot be resumed exactly",
    )
    _check_reference_world(cfg, world)
    _check_sampler(cfg)
    check_known("SOLVER.AMP.PRECISION", solver.AMP.PRECISION, TRAINING_PRECISIONS)
    _require(
        not (scales_loss(cfg) and cfg.MODEL.DEVICE == "cpu"),
        "SOLVER.AMP.PRECISION: float16 needs a GPU, but MODEL.DEVICE is cpu",
    )
    _require(
        cfg.TEST.EVAL_PERIOD >= 0,
        f"TEST.EVAL_PERIOD: must be 0 (only at the end) or more, not {cfg.TEST.EVAL_PERIOD}",
    )
    _require(
        cfg.TEST.EVAL_PERIOD == 0 or bool(cfg.DATASETS.TEST),
        f"TEST.EVAL_PERIOD: is {cfg.TEST.EVAL_PERIOD}, but DATASETS.TEST is empty",
    )
    if cfg.DISTILLATION.ENABLED:
        # Not above: a config without distillation needs none of its parts.
        from kdps.distillation.settings import check_distillation

        check_distillation(cfg)
    _check_best_metric(cfg)
    check_known("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", solver.CLIP_GRADIENTS.CLIP_TYPE, _CLIP_TYPES)
    check_known("SOLVER.OPTIMIZER", solver.OPTIMIZER, OPTIMIZERS)
    check_known("SOLVER.LR_SCHEDULER_NAME", solver.LR_SCHEDULER_NAME, _SCHEDULERS)
    late = [step for step in solver.STEPS if step > solver.MAX_ITER]
    _require(
        not late or solver.LR_SCHEDULER_NAME != "WarmupMultiStepLR",
        f"SOLVER.STEPS: {late} lie beyond SOLVER.MAX_ITER {solver.MAX_ITER}",
    )
    _require(cfg.LOG.PERIOD >= 1, f"LOG.PERIOD: must be at least 1, not {cfg.LOG.PERIOD}")
    _require(cfg.LOG.SECONDS > 0, f"LOG.SECONDS: must be above 0, not {cfg.LOG.SECONDS}")


def _check_reference_world(cfg: CfgNode, world: int) -> None:
    """Detectron2 scales iterations and periods to the processes there are, and rounds."""
    reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
    _require(reference >= 0, "SOLVER.REFERENCE_WORLD_SIZE: must be 0 (off) or more")
    if reference == 0:
        return
    for key, value in (
        ("SOLVER.MAX_ITER", cfg.SOLVER.MAX_ITER),
        ("SOLVER.CHECKPOINT_PERIOD", cfg.SOLVER.CHECKPOINT_PERIOD),
        ("TEST.EVAL_PERIOD", cfg.TEST.EVAL_PERIOD),
    ):
        _require(
            value == 0 or round(value * reference / world) >= 1,
            f"{key}: {value} becomes 0 when SOLVER.REFERENCE_WORLD_SIZE {reference} is scaled to "
            f"{world} processes",
        )


def _check_sampler(cfg: CfgNode) -> None:
    key, name = "DATALOADER.SAMPLER_TRAIN", cfg.DATALOADER.SAMPLER_TRAIN
    on_crops = cfg.MODEL.META_ARCHITECTURE == "CropReID"
    wanted = "IdentitySampler" if on_crops else "TrainingSampler"
    _require(
        name == wanted,
        f"{key}: {name!r} is not supported with {cfg.MODEL.META_ARCHITECTURE}, only {wanted!r}",
    )
    if not on_crops:
        return
    count = cfg.DATALOADER.INSTANCES_PER_IDENTITY
    key = "DATALOADER.INSTANCES_PER_IDENTITY"
    _require(count >= 1, f"{key}: must be at least 1, not {count}")
    share = cfg.SOLVER.IMS_PER_BATCH // (cfg.SOLVER.REFERENCE_WORLD_SIZE or comm.get_world_size())
    _require(
        share % count == 0,
        f"{key}: batches of {share} crops per process (SOLVER.IMS_PER_BATCH) cannot be made of "
        f"{count} of each identity",
    )
    _require(
        not cfg.DISTILLATION.ENABLED, "DISTILLATION.ENABLED: CropReID teaches, it is no student"
    )


def _check_best_metric(cfg: CfgNode) -> None:
    """Without a value of its own name there would never be a model_best.pth."""
    if not cfg.DATASETS.TEST:
        return
    node, metric = cfg.TEST.PERSON_SEARCH, cfg.TEST.BEST_METRIC
    known = reported_metrics(node.GALLERY_SIZES, annotated=node.GT_BOXES)
    if cfg.TEST.COCO_METRICS:
        known += _COCO_METRICS
    _require(
        metric in known,
        f"TEST.BEST_METRIC: {metric!r} is not reported by this config; known: {', '.join(known)}",
    )


def _check_output_dir(output_dir: str) -> None:
    _require(bool(output_dir), "OUTPUT_DIR: must not be empty")
    # The nearest existing folder decides whether the missing ones can be made.
    folder = Path(output_dir).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    _require(folder.is_dir(), f"OUTPUT_DIR: {folder} is not a folder")
    _require(os.access(folder, os.W_OK | os.X_OK), f"OUTPUT_DIR: {folder} is not writable")
