# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Training crops of single persons, for a re-ID network."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Boxes, BoxMode
from torchvision.transforms import RandomErasing

from kdps.data.crops import WindowRange, crop_people
from kdps.data.dataset_mapper import read_image
from kdps.data.records import UNLABELLED


def person_records(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A record for each person with an identity: the image's, with ``bbox`` and ``person_id``.

    Boxes without area in the image are left out.
    """
    found = []
    for record in records:
        image = {key: value for key, value in record.items() if key != "annotations"}
        for annotation in record["annotations"]:
            if annotation["person_id"] != UNLABELLED and annotation.get("iscrowd", 0) == 0:
                own = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
                if _has_area(own, record):
                    found.append({**image, "bbox": own, "person_id": annotation["person_id"]})
    return found


def _has_area(box: list[float], record: dict[str, Any]) -> bool:
    """Whether some of an XYXY box lies in the image."""
    x1, y1, x2, y2 = box
    width, height = record.get("width", np.inf), record.get("height", np.inf)
    return min(x2, width) > max(x1, 0) and min(y2, height) > max(y1, 0)


class PersonCropMapper:
    """Read the image of a record of :func:`person_records` and cut the person out.

    The result has ``image``, a (3, height, width) float tensor in ``INPUT.FORMAT`` order, ``pid``,
    ``file_name``, ``image_id`` and ``cam_id``.
    """

    @configurable
    def __init__(
        self,
        *,
        windows: WindowRange,
        image_format: str,
        fill: tuple[float, ...],
        shift: bool,
        flip: bool,
        erasing: float,
    ) -> None:
        """
        Args:
            windows: size of a crop, and the range of the windows.
            image_format: channel order.
            fill: pixel that stands beyond the image and on what is erased.
            shift: cut a random window in place of the box (spatial-invariant augmentation).
            flip: mirror every other crop.
            erasing: share of crops of which a random rectangle is erased ("Random Erasing Data
                Augmentation", Zhong et al., AAAI 2020).
        """
        self.windows = windows
        self.image_format = image_format
        self.fill = torch.tensor(fill)[:, None, None]
        self.shift = shift
        self.flip = flip
        self.erase = RandomErasing(erasing, scale=(0.02, 0.4), value=0.0)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.INPUT.PERSON_CROPS
        return {
            "windows": window_range(cfg),
            "image_format": cfg.INPUT.FORMAT,
            "fill": tuple(cfg.MODEL.PIXEL_MEAN),
            "shift": node.SHIFT,
            "flip": cfg.INPUT.RANDOM_FLIP != "none",
            "erasing": node.ERASING,
        }

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Map one record; the record itself is not changed.

        Raises:
            KdpsError: the image cannot be read or has another size than recorded.
        """
        pixels = read_image(dict(record), self.image_format)
        box = torch.tensor([record["bbox"]], dtype=torch.float32)
        if self.shift:
            box = self.windows.windows(box, torch.rand(1, 2))
        pixels, corner = _around(pixels, box[0].tolist())
        image = torch.as_tensor(pixels.transpose(2, 0, 1).copy(), dtype=torch.float)
        boxes = [Boxes(box - box.new_tensor(corner).repeat(2))]
        crop = crop_people((image - self.fill)[None], boxes, self.windows.size)[0]
        if self.flip and float(torch.rand(())) < 0.5:
            crop = crop.flip(2)
        kept = {key: record[key] for key in ("file_name", "image_id", "cam_id")}
        return {**kept, "image": self.erase(crop) + self.fill, "pid": record["person_id"]}


def _around(pixels: np.ndarray, box: list[float]) -> tuple[np.ndarray, tuple[int, int]]:
    """The part of an image that a crop of an XYXY box reads, and x and y of its first pixel."""
    parts, corner = [], []
    for low, high, side in zip(box[:2], box[2:], pixels.shape[1::-1], strict=True):
        # A pixel on either side for bilinear samples; at least one of those there are.
        first = min(max(math.floor(low) - 1, 0), side - 1)
        parts.append(slice(first, max(math.ceil(high) + 1, first + 1)))
        corner.append(first)
    return pixels[parts[1], parts[0]], tuple(corner)


def window_range(cfg: CfgNode) -> WindowRange:
    """The windows of ``INPUT.PERSON_CROPS``."""
    node = cfg.INPUT.PERSON_CROPS
    return WindowRange(tuple(node.SIZE), node.PADDING, node.ALPHA)
