# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Small models and inputs for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances

from kdps.config import get_cfg

# What makes another method of the SeqNet of tiny_cfg: keys and values.
TINY_RCNNS: dict[str, tuple[Any, ...]] = {
    "seqnet": (),
    "nae": (
        *("MODEL.ROI_HEADS.NAME", "NormAwareROIHeads"),
        *("MODEL.ROI_HEADS.IOU_THRESHOLDS", [0.1, 0.5], "MODEL.ROI_HEADS.IOU_LABELS", [0, -1, 1]),
    ),
    "nae_plus": (
        *("MODEL.ROI_HEADS.NAME", "PixelNormAwareROIHeads"),
        *("MODEL.REID_HEAD.NAME", "PixelNormAwareEmbedding"),
        *("MODEL.ROI_HEADS.IOU_THRESHOLDS", [0.1, 0.5], "MODEL.ROI_HEADS.IOU_LABELS", [0, -1, 1]),
    ),
    "seqnext": (
        *("MODEL.ROI_HEADS.NAME", "SeqNeXtROIHeads", "MODEL.REID_HEAD.NAME", "FusedEmbedding"),
        *("MODEL.REID_HEAD.OIM_OWN_EMPTY", 1.0),
    ),
    "oim": (
        *("MODEL.ROI_HEADS.NAME", "OIMROIHeads", "MODEL.REID_HEAD.NAME", "LinearEmbedding"),
        *("MODEL.PROPOSAL_GENERATOR.NAME", "InclusiveRPN"),
        *("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool"),
        *("MODEL.ROI_BOX_HEAD.REGION_POOL", "average"),
    ),
    "coat": (
        *("MODEL.ROI_HEADS.NAME", "CoatROIHeads", "MODEL.REID_HEAD.ID_LOSS_WEIGHT", 0.5),
        *("MODEL.ROI_BOX_HEAD.NAME", "TransformerBoxHead", "MODEL.COAT.DIM", 16),
        *("MODEL.COAT.OUTPUT_CHANNELS", 24, "MODEL.COAT.NUM_HEADS", 2),
        *("MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", [[10.0, 10.0, 5.0, 5.0]] * 3),
        # Two re-ID stages share the embedding.
        *("MODEL.REID_HEAD.EMBEDDING_DIM", 8),
    ),
}
# Options of tiny_cfg for the student of DKD.
DIVERSE_KD = (
    *("MODEL.ROI_HEADS.NAME", "DiverseKDROIHeads", "MODEL.ROI_BOX_HEAD.REGION_POOL", "average"),
    *("MODEL.REID_HEAD.TRIPLET_LOSS_WEIGHT", 1.0),
)
# Options of tiny_cfg for an AlignPS.
ALIGNPS = (
    *("MODEL.META_ARCHITECTURE", "AlignPS", "MODEL.BACKBONE.NAME", "build_aligned_backbone"),
    *("MODEL.AFA.BOTTOM_UP", "build_tiny_resnet", "MODEL.AFA.NUM_LEVELS", 3),
    *("MODEL.RESNETS.OUT_FEATURES", ["res3", "res4"], "MODEL.FPN.IN_FEATURES", ["res3", "res4"]),
    # A group norm has 32 groups.
    *("MODEL.FPN.OUT_CHANNELS", 32, "MODEL.REID_HEAD.EMBEDDING_DIM", 32),
    *("MODEL.ALIGNPS.IN_FEATURES", ("p3", "p4", "p5"), "MODEL.ALIGNPS.NUM_CONVS", 2),
    *("MODEL.REID_HEAD.OIM_FOCAL_GAMMA", 2.0, "MODEL.REID_HEAD.TRIPLET_LOSS_WEIGHT", 1.0),
)
# All methods.
TINY_METHODS: dict[str, tuple[Any, ...]] = {
    **TINY_RCNNS,
    "alignps": ALIGNPS,
    "roi_alignps": (
        *(*ALIGNPS, "MODEL.META_ARCHITECTURE", "ROIAlignPS"),
        *("MODEL.ROI_HEADS.NAME", "NormAwareROIHeads"),
    ),
}


def tiny_cfg(*opts: Any) -> CfgNode:
    """Config of a SeqNet that runs on a CPU in a fraction of a second.

    Args:
        opts: keys and values that override it, as on the command line.
    """
    cfg = get_cfg()
    tiny = [
        *("MODEL.DEVICE", "cpu", "MODEL.FROM_SCRATCH", True, "MODEL.WEIGHTS", ""),
        *("MODEL.META_ARCHITECTURE", "PersonSearchRCNN", "MODEL.MASK_ON", False),
        *("MODEL.BACKBONE.NAME", "build_tiny_resnet", "MODEL.BACKBONE.FREEZE_AT", 0),
        *("MODEL.RESNETS.NORM", "BN", "MODEL.RESNETS.OUT_FEATURES", ["res4"]),
        *("MODEL.TINY_RESNET.STEM_CHANNELS", 8, "MODEL.TINY_RESNET.CHANNELS", (8, 12, 16)),
        *("MODEL.TINY_RESNET.HEAD_CHANNELS", 24),
        *("MODEL.ANCHOR_GENERATOR.NAME", "RoundedAnchorGenerator"),
        *("MODEL.ANCHOR_GENERATOR.SIZES", [[16, 32]]),
        *("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[2.0]]),
        *("MODEL.ANCHOR_GENERATOR.OFFSET", 0.0),
        *("MODEL.PROPOSAL_GENERATOR.NAME", "PersonSearchRPN"),
        *("MODEL.RPN.POST_NMS_TOPK_TRAIN", 40, "MODEL.RPN.POST_NMS_TOPK_TEST", 20),
        *("MODEL.ROI_HEADS.NAME", "SeqROIHeads", "MODEL.ROI_HEADS.NUM_CLASSES", 1),
        *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16, "MODEL.ROI_HEADS.POSITIVE_FRACTION", 0.5),
        *("MODEL.ROI_BOX_HEAD.NAME", "TinyBoxHead", "MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlign"),
        *("MODEL.ROI_BOX_HEAD.POOLER_SIZE", (6, 3), "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", 1.0),
        *("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 2),
        *("MODEL.PERSON_SEARCH.SIZE_DIVISIBILITY", 16),
        *("MODEL.REID_HEAD.EMBEDDING_DIM", 16),
        *("MODEL.REID_HEAD.NUM_PIDS", 5, "MODEL.REID_HEAD.QUEUE_SIZE", 4),
    ]
    cfg.merge_from_list([*tiny, *opts])
    return cfg


def make_boxes(count: int, height: int, width: int, generator: torch.Generator) -> Boxes:
    """Boxes of standing people, XYXY pixels, inside an image of this size."""
    size = torch.rand(count, 1, generator=generator) * 0.3 + 0.3
    wh = size * torch.tensor([height / 2.5, float(height)])
    xy = torch.rand(count, 2, generator=generator) * (torch.tensor([width, height]) - wh)
    return Boxes(torch.cat([xy, xy + wh], dim=1))


def make_image(height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """(3, H, W) float pixels between 0 and 255."""
    return torch.rand(3, height, width, generator=generator) * 255


def make_training_batch(
    pids: list[list[int]], height: int = 64, width: int = 96, seed: int = 0
) -> list[dict[str, Any]]:
    """A batch as the training mapper makes it.

    Args:
        pids: for each image, the identities of its people; -1 is unlabelled.
    """
    generator = torch.Generator().manual_seed(seed)
    batch = []
    for image_pids in pids:
        instances = Instances(
            (height, width),
            gt_boxes=make_boxes(len(image_pids), height, width, generator),
            gt_classes=torch.zeros(len(image_pids), dtype=torch.int64),
            gt_pids=torch.tensor(image_pids, dtype=torch.int64),
        )
        image = make_image(height, width, generator)
        batch.append({"image": image, "instances": instances})
    return batch


def make_test_batch(
    queries: list[int],
    height: int = 64,
    width: int = 96,
    seed: int = 0,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> list[dict[str, Any]]:
    """A batch as the test mapper makes it, of originals twice as large as the network input.

    Args:
        queries: number of queries in each image; their ids count on through the batch.
        height, width: of the network input.
        seed: of pixels and boxes.
        sizes: height and width of each image, where they differ.
    """
    generator = torch.Generator().manual_seed(seed)
    batch, next_id = [], 0
    sizes = sizes or [(height, width)] * len(queries)
    for count, (h, w) in zip(queries, sizes, strict=True):
        boxes = make_boxes(count, h, w, generator)
        query_ids = torch.arange(next_id, next_id + count)
        next_id += count
        batch.append(
            {
                "image": make_image(h, w, generator),
                "height": 2 * h,
                "width": 2 * w,
                "queries": Instances((h, w), boxes=boxes, query_ids=query_ids),
            }
        )
    return batch
