# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Small re-ID networks on crops, and batches that they teach with."""

from pathlib import Path
from typing import Any

import torch
from detectron2.modeling import build_model

import kdps.modeling  # noqa: F401  (registers the models)
from kdps.utils.testing import make_training_batch, tiny_cfg

# Options of tiny_cfg.
CROP_REID = (
    *("MODEL.META_ARCHITECTURE", "CropReID", "INPUT.PERSON_CROPS.SIZE", (32, 16)),
    *("MODEL.ROI_BOX_HEAD.REGION_POOL", "average", "MODEL.REID_HEAD.TRIPLET_LOSS_WEIGHT", 1.0),
)


def write_crop_teacher(folder: Path, *opts: Any) -> dict[str, str]:
    """Write config and checkpoint of a network; returns the values of its node by key."""
    cfg = tiny_cfg(*CROP_REID, *opts)
    torch.manual_seed(12)
    model = build_model(cfg)
    torch.nn.init.normal_(model.identities.classifier.weight)
    cfg.defrost()
    cfg.MODEL.REID_HEAD.NUM_PIDS = cfg.MODEL.REID_HEAD.QUEUE_SIZE = -1
    (folder / "crop.yaml").write_text(cfg.dump())
    torch.save({"model": model.state_dict()}, folder / "crop.pth")
    return {"CONFIG_FILE": str(folder / "crop.yaml"), "WEIGHTS": str(folder / "crop.pth")}


def crop_batch(pids: list[list[int]], mirrored: tuple[bool, ...]) -> list[dict[str, Any]]:
    """A training batch (see :func:`make_training_batch`) with originals of twice its size.

    Args:
        pids: of the people of each image.
        mirrored: the images that are mirrored in the batch.
    """
    batch = make_training_batch(pids)
    for record, mirror in zip(batch, mirrored, strict=True):
        record["image"] = record["image"].round()
        enlarged = record["image"].repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        width = enlarged.shape[2]
        record["original"] = (enlarged.flip(2) if mirror else enlarged).to(torch.uint8)
        record["to_original"] = ((-2.0, float(width)) if mirror else (2.0, 0.0)), (2.0, 0.0)
        record["height"], record["width"] = enlarged.shape[1:]
    return batch
