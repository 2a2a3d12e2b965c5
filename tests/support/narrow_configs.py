# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The configs that the repository ships, made small."""

from kdps.config import get_cfg


def load(path):
    """The config of a file."""
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    return cfg


def narrow(cfg):
    """A model so small that it trains a step in a second, for five identities."""
    small = [
        *("MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8),
        *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 8),
        *("MODEL.RPN.POST_NMS_TOPK_TRAIN", 50, "MODEL.RPN.POST_NMS_TOPK_TEST", 10),
        *("MODEL.TIMM.NAME", "convnext_atto"),
        *("MODEL.COAT.DIM", 32, "MODEL.COAT.OUTPUT_CHANNELS", 32, "MODEL.COAT.NUM_HEADS", 2),
        # What the trainer takes from the training set.
        *("MODEL.REID_HEAD.NUM_PIDS", 5, "MODEL.REID_HEAD.QUEUE_SIZE", 4),
    ]
    if cfg.MODEL.RESNETS.DEPTH >= 50:
        # Detectron2 builds smaller depths in their own width only.
        small += ["MODEL.RESNETS.STEM_OUT_CHANNELS", 4, "MODEL.RESNETS.RES2_OUT_CHANNELS", 8]
        small += ["MODEL.RESNETS.WIDTH_PER_GROUP", 2]
    cfg.merge_from_list(small)
    return cfg
