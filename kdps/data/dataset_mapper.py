# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""From a record to the model's input."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import Boxes, BoxMode, Instances

from kdps.data.given_boxes import GivenBoxes
from kdps.data.image_file import read_pixels
from kdps.data.opencv_resize import ResizeShortestEdgeOpenCV, ResizeShortestEdgeOpenCVUint8
from kdps.data.transforms import ResizeShortestEdgeFloor
from kdps.errors import KdpsError

# Values of INPUT.RESIZE; None is Detectron2's own.
RESIZES = {
    "shortest_edge": None,
    "shortest_edge_floor": ResizeShortestEdgeFloor,
    "shortest_edge_opencv": ResizeShortestEdgeOpenCV,
    "shortest_edge_opencv_uint8": ResizeShortestEdgeOpenCVUint8,
}


class PersonSearchDatasetMapper:
    """Read the image of a record and transform its boxes with it.

    In training the result has ``image``, a (C, H, W) tensor in ``INPUT.FORMAT`` order, and
    ``instances`` with ``gt_boxes``, ``gt_classes`` (0) and ``gt_pids`` (int64, -1 unlabelled);
    the fields are there, empty, for an image without people. Boxes are clipped to the image and
    those without area left out. ``to_original`` has factor and offset from x of ``image`` to x of
    the image as it was read, and the same of y; a factor below 0 mirrors. With ``keep_original``
    there is that image, too: ``original``, (C, H, W) uint8.

    At test time the result has ``image``, the original ``height`` and ``width``, ``queries``
    (``Instances`` with ``boxes`` in pixels of the network input and int64 ``query_ids``) and, if
    ``with_annotated``, ``annotated`` with ``boxes`` in record order. These boxes are neither
    clipped nor dropped, so that each keeps its place. With ``given_boxes`` there is ``detected`` as
    well: ``pred_boxes``, ``scores`` and ``pred_classes`` (0) that take the place of detections.

    ``file_name``, ``image_id`` and ``cam_id`` stay in both.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: list[T.Augmentation | T.Transform],
        image_format: str,
        with_annotated: bool = False,
        min_visible: float = 0.0,
        given_boxes: GivenBoxes | None = None,
        keep_original: bool = False,
    ) -> None:
        """
        Args:
            is_train: whether records are mapped for training.
            augmentations: applied in this order to image and boxes.
            image_format: channel order, as ``INPUT.FORMAT``.
            with_annotated: at test time, pass the annotated boxes on as well.
            min_visible: in training, leave people out of whose box less than this share is left.
            given_boxes: at test time, boxes in place of the model's detections.
            keep_original: in training, pass the image on as it was read as well.
        """
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.with_annotated = with_annotated
        self.min_visible = min_visible
        self.given_boxes = given_boxes
        self.keep_original = keep_original

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        node = cfg.TEST.PERSON_SEARCH
        given = node.BOXES and not is_train
        return {
            "is_train": is_train,
            "augmentations": build_augmentation(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "with_annotated": node.GT_BOXES,
            "min_visible": cfg.INPUT.MIN_VISIBLE,
            "keep_original": cfg.INPUT.KEEP_ORIGINAL,
            "given_boxes": GivenBoxes(node.BOXES, node.BOX_SHIFT) if given else None,
        }

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Map one record (see ``kdps.data.records``); the record itself is not changed.

        Raises:
            KdpsError: the image cannot be read or has another size than recorded, or a query box
                has no part in it.
        """
        result = copy.deepcopy(record)
        annotations = result.pop("annotations", [])
        queries = result.pop("queries", [])
        image = read_image(result, self.image_format)
        original, (h, w) = image, image.shape[:2]
        aug_input = T.AugInput(image)
        transforms = self.augmentations(aug_input)
        image = aug_input.image
        result["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        size = image.shape[:2]

        if self.is_train:
            result["instances"] = _training_instances(
                annotations, transforms, size, self.min_visible
            )
            result["to_original"] = _to_original(transforms, h, w)
            if self.keep_original:
                result["original"] = torch.as_tensor(original.transpose(2, 0, 1).copy())
            return result
        for query in queries:
            _require_overlap(query, h, w, result["file_name"])
        targets = Instances(size, boxes=_transform_boxes(queries, transforms))
        targets.query_ids = torch.tensor([q["query_id"] for q in queries], dtype=torch.int64)
        result["queries"] = targets
        if self.with_annotated:
            result["annotated"] = Instances(size, boxes=_transform_boxes(annotations, transforms))
        if self.given_boxes is not None:
            result["detected"] = _as_detections(self.given_boxes(record), transforms, size)
        return result


def read_image(record: dict[str, Any], image_format: str) -> np.ndarray:
    """(H, W, 3) pixels of the image of a record, whose size is filled in where it is missing.

    Raises:
        KdpsError: the image cannot be read or has another size than recorded.
    """
    path = record["file_name"]
    image = read_pixels(path, image_format)
    try:
        utils.check_image_size(record, image)
    except utils.SizeMismatchError as error:
        size = f"{record['width']}x{record['height']}"
        found = f"{image.shape[1]}x{image.shape[0]}"
        raise KdpsError(f"image {path} is {found}, its record says {size}") from error
    return image


def build_augmentation(cfg: CfgNode, is_train: bool) -> list[T.Augmentation | T.Transform]:
    """Detectron2's augmentations of ``cfg.INPUT``, with the resize of ``cfg.INPUT.RESIZE``."""
    if cfg.INPUT.RESIZE not in RESIZES:
        known = " or ".join(map(repr, RESIZES))
        raise KdpsError(f"INPUT.RESIZE is {cfg.INPUT.RESIZE!r}; it should be {known}")
    augmentations = utils.build_augmentation(cfg, is_train)
    resize = RESIZES[cfg.INPUT.RESIZE]
    if is_train and cfg.INPUT.MAX_SIZES_TRAIN:
        _check_pairs(cfg)
    if resize is not None and is_train:
        sizes, style = cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
        augmentations[0] = resize(
            sizes, cfg.INPUT.MAX_SIZES_TRAIN or cfg.INPUT.MAX_SIZE_TRAIN, style
        )
    elif resize is not None:
        augmentations[0] = resize(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    if cfg.INPUT.CROP.ENABLED and is_train:
        augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
    return augmentations


def _check_pairs(cfg: CfgNode) -> None:
    """Raise a KdpsError unless each size of training has a bound of its own."""
    key, bounds = "INPUT.MAX_SIZES_TRAIN", len(cfg.INPUT.MAX_SIZES_TRAIN)
    if RESIZES[cfg.INPUT.RESIZE] is None:
        raise KdpsError(f"{key}: INPUT.RESIZE {cfg.INPUT.RESIZE!r} knows only one MAX_SIZE_TRAIN")
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING != "choice":
        raise KdpsError(f"{key}: needs INPUT.MIN_SIZE_TRAIN_SAMPLING 'choice'")
    if bounds != len(cfg.INPUT.MIN_SIZE_TRAIN):
        raise KdpsError(
            f"{key}: has {bounds} sizes for the {len(cfg.INPUT.MIN_SIZE_TRAIN)} of "
            "INPUT.MIN_SIZE_TRAIN"
        )


def _transform_boxes(items: list[dict[str, Any]], transforms: T.TransformList) -> Boxes:
    boxes = [BoxMode.convert(i["bbox"], i["bbox_mode"], BoxMode.XYXY_ABS) for i in items]
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return Boxes(torch.as_tensor(transforms.apply_box(array), dtype=torch.float32))


def _to_original(
    transforms: T.TransformList, height: int, width: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Factor and offset of x and of y from the transformed image to the original one."""
    corners = transforms.apply_coords(np.array([[0.0, 0.0], [width, height]]))
    factors = np.array([width, height]) / (corners[1] - corners[0])
    offsets = -factors * corners[0]
    return tuple(zip(factors.tolist(), offsets.tolist(), strict=True))


def _as_detections(
    given: np.ndarray, transforms: T.TransformList, size: tuple[int, int]
) -> Instances:
    boxes = torch.as_tensor(transforms.apply_box(given[:, :4]), dtype=torch.float32)
    return Instances(
        size,
        pred_boxes=Boxes(boxes),
        scores=torch.as_tensor(given[:, 4]),
        pred_classes=torch.zeros(len(given), dtype=torch.int64),
    )


def _training_instances(
    annotations: list[dict[str, Any]],
    transforms: T.TransformList,
    size: tuple[int, int],
    min_visible: float,
) -> Instances:
    people = [a for a in annotations if a.get("iscrowd", 0) == 0]
    instances = Instances(size, gt_boxes=_transform_boxes(people, transforms))
    whole = instances.gt_boxes.area()
    instances.gt_boxes.clip(size)
    instances.gt_classes = torch.zeros(len(people), dtype=torch.int64)
    pids = [person["person_id"] for person in people]
    instances.gt_pids = torch.tensor(pids, dtype=torch.int64)
    visible = instances.gt_boxes.area() >= min_visible * whole
    return instances[instances.gt_boxes.nonempty() & visible]


def _require_overlap(query: dict[str, Any], h: int, w: int, path: str) -> None:
    x1, y1, x2, y2 = BoxMode.convert(query["bbox"], query["bbox_mode"], BoxMode.XYXY_ABS)
    # Written so that a NaN fails too.
    if not (min(x2, w) > max(x1, 0) and min(y2, h) > max(y1, 0)):
        where = f"query {query['query_id']} in image {path}"
        raise KdpsError(f"{where}: bbox {query['bbox']} has no part in the {w}x{h} image")
