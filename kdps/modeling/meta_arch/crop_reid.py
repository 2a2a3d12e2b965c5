# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Re-identification of people cut out of images: a teacher, and the second half of two steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.roi_heads import build_box_head
from detectron2.structures import Boxes, ImageList, Instances
from torch import nn
from torch.nn import functional as F

from kdps.data.crops import crop_people
from kdps.errors import KdpsError
from kdps.modeling.losses import IdentitySoftmaxLoss, batch_hard_triplet_loss
from kdps.modeling.meta_arch.inference import Features, PersonSearchInference
from kdps.modeling.roi_heads.person_search_heads import split_boxes

# Crops that go through the network together; bounds the memory, changes no result.
_CROPS_AT_ONCE = 64


@META_ARCH_REGISTRY.register()
class CropReID(PersonSearchInference, nn.Module):
    """A person re-ID network that has no part in finding people.

    Backbone, last stage and mean over the cells of a crop, then a BNNeck: "Bag of Tricks and a
    Strong Baseline for Deep Person Re-identification" (Luo et al., CVPRW 2019). It trains on crops
    (``image`` of one size and ``pid`` of each) by the classification of identities and the
    batch-hard triplet loss. At test time it embeds boxes of whole images: those of queries, and
    those in place of detections (``detected``), without which it finds nobody.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        in_feature: str,
        head: nn.Module,
        identities: IdentitySoftmaxLoss,
        size: tuple[int, int],
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        loss_weights: Mapping[str, float],
        triplet_margin: float = 0.3,
        test_precision: str = "float32",
    ) -> None:
        """
        Args:
            backbone: gives the map ``in_feature`` of crops.
            in_feature: name of that map.
            head: from the map to a feature "res5" of each crop, as a box head.
            identities: BNNeck and classifier.
            size: height and width of a crop.
            pixel_mean, pixel_std: of the channels of an input.
            loss_weights: of "loss_id" and "loss_triplet"; 0 leaves the latter out.
            triplet_margin: see :func:`batch_hard_triplet_loss`.
            test_precision: see :meth:`PersonSearchInference.set_up_inference`.
        """
        super().__init__()
        self.backbone = backbone
        self.in_feature = in_feature
        self.head = head
        self.identities = identities
        self.size = size
        self.loss_weights = dict(loss_weights)
        self.triplet_margin = triplet_margin
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        # Whole images are never the input of the network.
        self.set_up_inference("given_box", 1, test_precision)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        backbone = build_backbone(cfg)
        (in_feature,) = cfg.MODEL.ROI_HEADS.IN_FEATURES
        shapes = backbone.output_shape()
        if in_feature not in shapes:
            raise KdpsError(
                f"MODEL.ROI_HEADS.IN_FEATURES: {in_feature!r} is none of the maps of "
                f"{cfg.MODEL.BACKBONE.NAME} ({', '.join(shapes)})"
            )
        head = build_box_head(cfg, ShapeSpec(channels=shapes[in_feature].channels))
        reid = cfg.MODEL.REID_HEAD
        return {
            "backbone": backbone,
            "in_feature": in_feature,
            "head": head,
            "identities": IdentitySoftmaxLoss(
                max(reid.NUM_PIDS, 1),
                head.output_shape["res5"].channels,
                reid.LABEL_SMOOTHING,
                embeds=True,
            ),
            "size": tuple(cfg.INPUT.PERSON_CROPS.SIZE),
            "pixel_mean": tuple(cfg.MODEL.PIXEL_MEAN),
            "pixel_std": tuple(cfg.MODEL.PIXEL_STD),
            "loss_weights": {
                "loss_id": reid.LOSS_WEIGHT,
                "loss_triplet": reid.TRIPLET_LOSS_WEIGHT,
            },
            "triplet_margin": reid.TRIPLET_MARGIN,
            "test_precision": cfg.TEST.PRECISION,
        }

    @property
    def device(self) -> torch.device:
        """That inputs are moved to."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses by name in training; otherwise see :meth:`PersonSearchInference.inference`."""
        if not self.training:
            return self.inference(batched_inputs)
        crops = torch.stack([x["image"] for x in batched_inputs]).to(self.device)
        pids = torch.tensor([x["pid"] for x in batched_inputs], device=self.device)
        features = self._features((crops - self.pixel_mean) / self.pixel_std)
        losses = {"loss_id": self.identities(features, pids)}
        if self.loss_weights["loss_triplet"] > 0:
            # Distances are compared before the neck, cosines behind it.
            losses["loss_triplet"] = batch_hard_triplet_loss(features, pids, self.triplet_margin)
        return {name: self.loss_weights[name] * loss for name, loss in losses.items()}

    def describe_crops(self, crops: torch.Tensor) -> torch.Tensor:
        """
        Args:
            crops: (R, 3, height, width) normalised pixels.

        Returns:
            (R, D) float32 features behind the neck, which the classifier takes. Their directions
            are the embeddings.
        """
        parts = crops.split(_CROPS_AT_ONCE)
        return torch.cat([self.identities.neck(self._features(part)) for part in parts])

    def _features(self, crops: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(crops)[self.in_feature])["res5"].float()

    def _describe(self, images: ImageList) -> Features:
        return {}

    def _detect(self, images: ImageList, features: Features) -> list[Instances]:
        nowhere = [Boxes(torch.zeros(0, 4, device=self.device)) for _ in images.image_sizes]
        embeddings = self._embed(images, features, nowhere)
        return [
            Instances(
                size,
                pred_boxes=boxes,
                scores=boxes.tensor[:, 0],
                pred_classes=torch.zeros(0, dtype=torch.int64, device=self.device),
                pred_embeddings=rows,
            )
            for size, boxes, rows in zip(images.image_sizes, nowhere, embeddings, strict=True)
        ]

    def _embed(
        self, images: ImageList, features: Features, boxes: list[Boxes]
    ) -> list[torch.Tensor]:
        rows = torch.cat(
            [
                self.describe_crops(crop_people(images.tensor, part, self.size))
                for part in split_boxes(boxes, _CROPS_AT_ONCE)
            ]
        )
        return list(F.normalize(rows).split([len(own) for own in boxes]))

    def _move_to_current_device(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.device)
